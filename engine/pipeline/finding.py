"""Find the candidates of a range by an access path: rows of users, batch by batch, in the order of the layout.

Every path gives at least everybody who may enter; `Candidates.living` then leaves those who may. Paths that find users
elsewhere (a list, Elasticsearch) read them from MongoDB; the cached scan reads the cache and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from engine.domain.keys import HASH_SPACE, hash_prefix, suffix_of_user
from engine.domain.work import AccessPath, Slice
from engine.errors import ProgrammerError
from engine.pipeline.book import Entry
from engine.pipeline.sources import ListReads, RangeReads, Search, UserCache
from engine.predicate.compiled import Candidates
from engine.predicate.fields import Row

AFTER: Final = "\0"
"""Appended to a key, gives the bound just behind it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one step of a path gave.

    `read` is how many users were read for the rows, `then` where the next step begins (None: the range ends here).
    `changes` tells later whether users of the cache changed meanwhile.
    """

    rows: Sequence[Row]
    read: int
    then: str | None
    changes: int | None = None


class Finding:
    """The access paths of one process; `index` and `cache` are None where there is none."""

    def __init__(
        self,
        users: RangeReads,
        lists: Callable[[str], ListReads],
        index: Search | None,
        cache: UserCache | None,
        size_of: Callable[[str], int],
    ) -> None:
        """`size_of` gives about how many users a workspace has."""
        self._users = users
        self._lists = lists
        self._index = index
        self._cache = cache
        self._size_of = size_of

    def next(self, piece: Slice, entry: Entry, wanted: Candidates, first: str, size: int) -> Found:
        """The next `size` users or so from bound `first` on. Raises `ProgrammerError` where the path has no store."""
        match piece.path:
            case AccessPath.CACHE:
                return self._cached(piece, first, size)
            case AccessPath.ELASTIC:
                if self._index is None:
                    raise ProgrammerError("a slice asks for Elasticsearch, and there is none")
                query = wanted.elastic().filter
                keys = self._index.ids(query, piece.workspace, first, piece.until, size)
                return self._named(entry, keys, size)
            case AccessPath.LIST:
                name = entry.compiled.audience.compiled.required_lists[0]
                keys = self._lists(piece.workspace).read_range(piece.workspace, name, first, piece.until, size)
                return self._named(entry, keys, size)
            case AccessPath.INDEX:
                query = wanted.mongo().filter
                documents = self._users.find_range(piece.workspace, query, first, piece.until, size, entry.projection)
            case _:
                documents = self._users.read_range(piece.workspace, first, piece.until, size, entry.projection)
        then = suffix_of_user(documents[-1]["_id"]) + AFTER if len(documents) == size else None
        return Found(list(map(entry.catalogue.row, documents)), len(documents), then)

    def _named(self, entry: Entry, keys: Sequence[str], size: int) -> Found:
        documents = self._users.read_keys(keys, entry.projection) if keys else []
        then = suffix_of_user(keys[-1]) + AFTER if len(keys) == size else None
        return Found(list(map(entry.catalogue.row, documents)), len(keys), then)

    def _cached(self, piece: Slice, first: str, size: int) -> Found:
        if self._cache is None:
            raise ProgrammerError("a slice asks for the user cache, and there is none")
        share = size / max(1, self._size_of(piece.workspace))
        edge = hash_prefix(min(HASH_SPACE, int(first[:8], 16) + max(1, int(share * HASH_SPACE))))
        read = self._cache.scan(piece.workspace, first, min(edge, piece.until))
        then = None if read.until >= piece.until else read.until
        return Found(read.rows, len(read.rows), then, read.changes)
