"""Find the candidates of a range by an access path: rows of users, batch by batch, in the order of the layout.

Every path reads at least everybody who may enter, and keeps those who may (`Candidates.living`). Paths that find users
elsewhere (a list, Elasticsearch) read them from MongoDB; the cached scan reads the cache and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from engine.domain.document import Document
from engine.domain.keys import AFTER, bound_behind
from engine.domain.work import AccessPath, Slice
from engine.errors import EngineError, ProgrammerError
from engine.measuring import measured
from engine.pipeline.book import Entry
from engine.pipeline.sources import ListReads, RangeReads, Search, UserCache
from engine.pipeline.working import Hold, Scan
from engine.predicate.compiled import Candidates
from engine.predicate.fields import Catalogue, Row

READS: Final = 4
"""Batches that a cached scan reads as one where few match: a batch costs some milliseconds, 5,000 users of it five."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one step of a path gave.

    `rows` are the candidates, `read` is how many users were read for them, `then` where the next step begins (None: the
    range ends here). `changes` tells later whether users of the cache changed meanwhile. `timed` is whether the path
    itself gave them, not what stood in for it (a scan, or what the cache had to load): else its time says nothing.
    """

    rows: list[Row]
    read: int
    then: str | None
    changes: int | None = None
    timed: bool = True


class Finding:
    """The access paths of one process; `index` and `cache` are None where there is none."""

    def __init__(
        self,
        users: RangeReads,
        lists: Callable[[str], ListReads],
        index: Search | None,
        filled: Callable[[Catalogue], str | None],
        cache: UserCache | None,
    ) -> None:
        """`filled` gives the name of the Elasticsearch index that has everybody by a catalogue; None: none has."""
        self._users = users
        self._lists = lists
        self._index = index
        self._filled = filled
        self._cache = cache

    def next(self, hold: Hold, entry: Entry, wanted: Candidates, first: str, size: int) -> Found:
        """The next `size` users or so from bound `first` on; from the user cache more where few of them match.

        Raises `ProgrammerError` where the path has no store.
        """
        piece = hold.piece
        match piece.path:
            case AccessPath.CACHE:
                with measured("cache.read") as call:
                    found = self._cached(hold, entry, wanted, first, size)
                    call.documents = 0 if found is None else found.read
                return found or self._stand_in(piece, entry, wanted, first, size)
            case AccessPath.ELASTIC:
                if self._index is None:
                    raise ProgrammerError("a slice asks for Elasticsearch, and there is none")
                query, index = wanted.elastic().filter, self._filled(entry.catalogue)
                if index is None:  # lost since the run was planned
                    return self._stand_in(piece, entry, wanted, first, size)
                try:
                    keys = self._index.ids(query, piece.workspace, first, piece.until, size, index)
                except EngineError:  # it went away while the slice went on
                    return self._stand_in(piece, entry, wanted, first, size)
                return self._named(entry, wanted, keys, size)
            case AccessPath.LIST:
                name = next(iter(entry.compiled.audience.compiled.required_lists), None)
                if name is None:  # the audience was edited since the run was planned
                    return self._stand_in(piece, entry, wanted, first, size)
                keys = self._lists(piece.workspace).read_range(piece.workspace, name, first, piece.until, size)
                return self._named(entry, wanted, keys, size)
            case AccessPath.INDEX:
                query = wanted.mongo().filter
                documents = self._users.find_range(piece.workspace, query, first, piece.until, size, entry.projection)
            case _:
                return self._scanned(piece, entry, wanted, first, size)
        then = bound_behind(documents[-1]["_id"]) if len(documents) == size else None
        return Found(_living(entry, wanted, documents), len(documents), then)

    def _named(self, entry: Entry, wanted: Candidates, keys: Sequence[str], size: int) -> Found:
        documents = self._users.read_keys(keys, entry.projection) if keys else []
        then = bound_behind(keys[-1]) if len(keys) == size else None
        return Found(_living(entry, wanted, documents), len(keys), then)

    def _scanned(self, piece: Slice, entry: Entry, wanted: Candidates, first: str, size: int) -> Found:
        documents = self._users.read_range(piece.workspace, first, piece.until, size, entry.projection)
        then = bound_behind(documents[-1]["_id"]) if len(documents) == size else None
        return Found(_living(entry, wanted, documents), len(documents), then)

    def _stand_in(self, piece: Slice, entry: Entry, wanted: Candidates, first: str, size: int) -> Found:
        return replace(self._scanned(piece, entry, wanted, first, size), timed=False)

    def _cached(self, hold: Hold, entry: Entry, wanted: Candidates, first: str, size: int) -> Found | None:
        """The next rows of the scan that goes on, read ahead; None where no cache is in force (any more).

        At least `size` users, and on to `READS` times as many while fewer than one in `READS` of `size` is a candidate.
        """
        if self._cache is None:
            return None
        piece, scan = hold.piece, hold.scan
        epoch = self._cache.epoch(piece.workspace, fresh=scan is None)
        asked = (epoch, first.removesuffix(AFTER), entry.catalogue)
        if scan is None or (scan.epoch, scan.reached, scan.catalogue) != asked:
            batches = self._cache.scan(piece.workspace, first, piece.until, entry.fields, entry.catalogue)
            if batches is None:
                return None
            scan = hold.scan = Scan(batches, *asked)
        rows: list[Row] = []
        users, hits, changes, then = 0, 0, None, None
        for read in scan.batches:
            changes = read.changes if changes is None else changes
            users += len(read.rows)
            hits += read.hits
            rows += wanted.living(read.rows, piece.as_of)
            scan.reached = read.until
            del read  # its rows are freed before the next ones are decoded: a quarter less processor time
            if users >= size and (users >= READS * size or len(rows) >= size // READS):
                then = None if scan.reached >= piece.until else scan.reached
                break
        return Found(rows, users, then, changes, timed=hits >= users)


def _living(entry: Entry, wanted: Candidates, documents: Sequence[Document]) -> list[Row]:
    """The candidates among some documents, as rows."""
    return wanted.living(list(map(entry.catalogue.row, documents)), wanted.as_of)
