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
class Step:
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

    def next(self, hold: Hold, entry: Entry, candidates: Candidates, first: str, size: int) -> Step:
        """Read about `size` users from bound `first` on; from the user cache more, if few of them match.

        Raises `ProgrammerError` if the slice asks for Elasticsearch and the process has none.
        """
        slice_ = hold.slice
        match slice_.path:
            case AccessPath.CACHE:
                with measured("cache.read") as call:
                    step = self._cached(hold, entry, candidates, first, size)
                    call.documents = 0 if step is None else step.read
                return step or self._stand_in(slice_, entry, candidates, first, size)
            case AccessPath.ELASTIC:
                if self._index is None:
                    raise ProgrammerError("a slice needs Elasticsearch, but there is none")
                query, index = candidates.elastic().filter, self._filled(entry.catalogue)
                if index is None:  # lost since the run was planned
                    return self._stand_in(slice_, entry, candidates, first, size)
                try:
                    keys = self._index.ids(query, slice_.workspace, first, slice_.until, size, index)
                except EngineError:  # Elasticsearch failed while the slice ran
                    return self._stand_in(slice_, entry, candidates, first, size)
                return self._named(entry, candidates, keys, size)
            case AccessPath.LIST:
                name = next(iter(entry.compiled.audience.compiled.required_lists), None)
                if name is None:  # the audience was edited since the run was planned
                    return self._stand_in(slice_, entry, candidates, first, size)
                keys = self._lists(slice_.workspace).read_range(slice_.workspace, name, first, slice_.until, size)
                return self._named(entry, candidates, keys, size)
            case AccessPath.INDEX:
                query = candidates.mongo().filter
                documents = self._users.find_range(slice_.workspace, query, first, slice_.until, size, entry.projection)
            case _:
                return self._scanned(slice_, entry, candidates, first, size)
        then = bound_behind(documents[-1]["_id"]) if len(documents) == size else None
        return Step(_living(entry, candidates, documents), len(documents), then)

    def _named(self, entry: Entry, candidates: Candidates, keys: Sequence[str], size: int) -> Step:
        documents = self._users.read_keys(keys, entry.projection) if keys else []
        then = bound_behind(keys[-1]) if len(keys) == size else None
        return Step(_living(entry, candidates, documents), len(keys), then)

    def _scanned(self, slice_: Slice, entry: Entry, candidates: Candidates, first: str, size: int) -> Step:
        documents = self._users.read_range(slice_.workspace, first, slice_.until, size, entry.projection)
        then = bound_behind(documents[-1]["_id"]) if len(documents) == size else None
        return Step(_living(entry, candidates, documents), len(documents), then)

    def _stand_in(self, slice_: Slice, entry: Entry, candidates: Candidates, first: str, size: int) -> Step:
        return replace(self._scanned(slice_, entry, candidates, first, size), timed=False)

    def _cached(self, hold: Hold, entry: Entry, candidates: Candidates, first: str, size: int) -> Step | None:
        """Read the next rows of the open cache scan, which reads ahead; return None if no cache is usable (any more).

        Read at least `size` users. While fewer than `size // READS` candidates were found, continue up to
        `READS * size` users.
        """
        if self._cache is None:
            return None
        slice_, scan = hold.slice, hold.scan
        epoch = self._cache.epoch(slice_.workspace, fresh=scan is None)
        key = (epoch, first.removesuffix(AFTER), entry.catalogue)
        if scan is None or (scan.epoch, scan.reached, scan.catalogue) != key:
            batches = self._cache.scan(slice_.workspace, first, slice_.until, entry.fields, entry.catalogue)
            if batches is None:
                return None
            scan = hold.scan = Scan(batches, *key)
        rows: list[Row] = []
        users, hits, changes, then = 0, 0, None, None
        for read in scan.batches:
            changes = read.changes if changes is None else changes
            users += len(read.rows)
            hits += read.hits
            rows += candidates.living(read.rows, slice_.as_of)
            scan.reached = read.until
            del read  # frees its rows before the next ones are decoded, which saves a quarter of processor time
            if users >= size and (users >= READS * size or len(rows) >= size // READS):
                then = None if scan.reached >= slice_.until else scan.reached
                break
        return Step(rows, users, then, changes, timed=hits >= users)


def _living(entry: Entry, candidates: Candidates, documents: Sequence[UserDocument]) -> list[Row]:
    """Return the candidates among some documents, as rows."""
    return candidates.living(list(map(entry.catalogue.row, documents)), candidates.as_of)
