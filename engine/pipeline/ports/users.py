"""Users, their events and lists, as the use cases read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from engine.clock import Instant
from engine.domain.counts import Population
from engine.domain.document import UserDocument
from engine.predicate.compiled import EventFacts, EventQuery


class UserReads(Protocol):
    """Read users by key range or by key."""

    def read_range(
        self, workspace: str, first: str, until: str, limit: int, projection: Mapping[str, int] | None = None
    ) -> list[UserDocument]: ...
    def read_keys(self, keys: Iterable[str], projection: Mapping[str, int] | None = None) -> list[UserDocument]: ...
    def estimate(self, workspace: str) -> int: ...
    def population(self, workspace: str, most: int) -> Population: ...


class EventReads(Protocol):
    """Read stored events for the predicates that need them."""

    def fetch(
        self, keys: Sequence[str], queries: Sequence[EventQuery], as_of: Instant, *, adjacent: bool = False
    ) -> Mapping[str, EventFacts]: ...


class AudienceCounts(Protocol):
    """Count users inside MongoDB, for filters that MongoDB answers exactly."""

    def count(self, workspace: str, query: Mapping[str, object]) -> int: ...


class RangeReads(Protocol):
    """Read users for access paths (`engine.stores.mongo.users`)."""

    def read_range(
        self, workspace: str, first: str, until: str, limit: int, projection: Mapping[str, int] | None = None
    ) -> list[UserDocument]: ...
    def read_keys(self, keys: Iterable[str], projection: Mapping[str, int] | None = None) -> list[UserDocument]: ...
    def find_range(
        self,
        workspace: str,
        query: Mapping[str, object],
        first: str,
        until: str,
        limit: int,
        projection: Mapping[str, int] | None = None,
    ) -> list[UserDocument]: ...
    def estimate(self, workspace: str) -> int: ...
    def indexed(self) -> list[tuple[str, ...]]: ...


class ListReads(Protocol):
    """Read the members of one workspace's lists (`engine.stores.mongo.lists`)."""

    def read_range(self, workspace: str, name: str, first: str, until: str, limit: int) -> list[str]: ...
    def size(self, workspace: str, name: str) -> int: ...
