"""Find the candidates of a range by an access path: rows of users, batch by batch, in key order.

Every path reads at least all users who may enter, then keeps those who may (`Candidates.living`). The paths that find
keys elsewhere (a list, Elasticsearch) read the users from MongoDB. The cached scan reads only the user cache, which
loads the buckets that it misses from MongoDB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.fields import Row
from engine.domain.document import UserDocument
from engine.domain.keys import AFTER, bound_behind
from engine.domain.work import AccessPath, Slice
from engine.errors import EngineError, ProgrammerError
from engine.pipeline.campaigns.compiled_cache import Entry
from engine.pipeline.ports.search import Search
from engine.pipeline.ports.user_cache import UserCache
from engine.pipeline.ports.users import ListReads, RangeReads
from engine.pipeline.slices.runner import Hold, Scan
from engine.predicate.compiled import Candidates
from engine.query_metrics import measured

READS: Final = 4
"""Most batches that a cached scan reads as one if few users match. A batch costs some ms; 5,000 cached users cost 5."""


@dataclass(frozen=True, slots=True)
class Found:
    """Result of one step of a path.

    `rows` are the candidates. `read` counts the users that were read for them. `then` is the bound of the next step
    (None: the range ends here). `changes` is the cache's counter of refreshes at the read: compare it later to see
    whether cached users changed meanwhile. `timed` says whether the path itself gave the rows. It is False if a scan
    replaced the path, or the cache had to load rows: then the time says nothing about the path.
    """

    rows: list[Row]
    read: int
    then: str | None
    changes: int | None = None
    timed: bool = True


class CandidateReader:
    """The access paths of one process; `index` and `cache` are None if the process has none."""

    def __init__(
        self,
        users: RangeReads,
        lists: Callable[[str], ListReads],
        index: Search | None,
        filled: Callable[[Catalogue], str | None],
        cache: UserCache | None,
    ) -> None:
        """`filled` returns the Elasticsearch index that is complete for a catalogue; None if there is none."""
        self._users = users
        self._lists = lists
        self._index = index
        self._filled = filled
        self._cache = cache

    def next(self, hold: Hold, entry: Entry, wanted: Candidates, first: str, size: int) -> Found:
        """Read about `size` users from bound `first` on; from the user cache more, if few of them match.

        Raises `ProgrammerError` if the slice asks for Elasticsearch and the process has none.
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
                    raise ProgrammerError("a slice needs Elasticsearch, but there is none")
                query, index = wanted.elastic().filter, self._filled(entry.catalogue)
                if index is None:  # lost since the run was planned
                    return self._stand_in(piece, entry, wanted, first, size)
                try:
                    keys = self._index.ids(query, piece.workspace, first, piece.until, size, index)
                except EngineError:  # Elasticsearch failed while the slice ran
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
        """Read the next rows of the open cache scan, which reads ahead; return None if no cache is usable (any more).

        Read at least `size` users. While fewer than `size // READS` candidates were found, continue up to
        `READS * size` users.
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
            del read  # frees its rows before the next ones are decoded, which saves a quarter of processor time
            if users >= size and (users >= READS * size or len(rows) >= size // READS):
                then = None if scan.reached >= piece.until else scan.reached
                break
        return Found(rows, users, then, changes, timed=hits >= users)


def _living(entry: Entry, wanted: Candidates, documents: Sequence[UserDocument]) -> list[Row]:
    """Return the candidates among some documents, as rows."""
    return wanted.living(list(map(entry.catalogue.row, documents)), wanted.as_of)
