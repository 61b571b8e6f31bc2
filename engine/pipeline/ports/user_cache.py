"""The user cache, as access paths and the feed use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.fields import Row
from engine.domain.document import UserDocument
from engine.domain.looks import FeedState


class CachedRows(Protocol):
    """One batch of rows from the user cache.

    The rows end at the bound `until`, just behind the last bucket that was read. `hits` counts the rows that were
    already cached. `changes` is the workspace's counter of refreshes at the time of the read (None if Redis did not
    answer).
    """

    @property
    def rows(self) -> list[Row]: ...
    @property
    def until(self) -> str: ...
    @property
    def hits(self) -> int: ...
    @property
    def changes(self) -> int | None: ...


class UserCache(Protocol):
    """The user cache; no method raises if Redis is away."""

    def scan(
        self, workspace: str, first: str, until: str, fields: frozenset[str], catalogue: Catalogue
    ) -> Iterator[CachedRows] | None: ...
    def epoch(self, workspace: str, *, fresh: bool = False) -> str | None: ...
    def adopt(
        self,
        state: FeedState,
        named: Callable[[str], tuple[frozenset[str], frozenset[str]]],
        catalogues: Mapping[str, Catalogue],
    ) -> list[str]: ...
    def refresh(self, workspace: str, documents: Sequence[UserDocument], gone: Sequence[str] = ()) -> bool: ...
    def warm(self, workspace: str) -> int: ...
    def changes(self, workspace: str) -> int | None: ...
    def revisions(self, workspace: str, keys: Sequence[str]) -> Mapping[str, int | None]: ...
    def refused(self, workspace: str, fields: frozenset[str], events: frozenset[str]) -> str | None: ...
    def warm_share(self, workspace: str) -> float: ...


class Recheck(Protocol):
    """Request a re-evaluation of users who changed after the cache gave their rows to a decision."""

    def changed(self, workspace: str, rows: Sequence[Row], since: int | None) -> int: ...
