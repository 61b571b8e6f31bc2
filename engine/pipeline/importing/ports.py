"""What an import needs of the stores, and of whoever watches it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.domain.changes import Applied, NewEvent, UserChange


class UserWriter(Protocol):
    """`engine.stores.upserts.UserUpserts`."""

    def apply(self, changes: Sequence[UserChange], *, revive: bool = False) -> Applied:
        """Write a batch of rows in order; an outcome per row."""


class Tombstones(Protocol):
    """`engine.stores.users.Users`."""

    def deleted(self, keys: Collection[str]) -> set[str]:
        """Those of `keys` that are tombstones."""


class EventWriter(Protocol):
    """`engine.stores.events.Events`."""

    def record(self, events: Sequence[NewEvent]) -> list[bool]:
        """Store what is not stored yet; True per event where it is new."""


class Deriver(Protocol):
    """`engine.stores.derived.Derivation`."""

    def derive(self, keys: Collection[str]) -> set[str]:
        """Bring users in line with their events; returns those written."""


class ListWriter(Protocol):
    """`engine.stores.lists.Lists`."""

    def add(self, name: str, keys: Sequence[str], *, run: str | None = None) -> Applied:
        """Make users members; `run` marks those that a replacing import names."""

    def remove(self, name: str, keys: Sequence[str]) -> Applied:
        """End memberships."""

    def remove_others(self, workspace: str, name: str, run: str, limit: int) -> tuple[int, set[str]]:
        """End memberships that `run` has not named; how many, and the users written."""


class Cursors(Protocol):
    """`engine.stores.imports.ImportCursors`."""

    def load(self, key: str) -> Mapping[str, Any] | None:
        """The last saved state, or None."""

    def save(self, key: str, state: Mapping[str, object]) -> None:
        """Move the cursor."""

    def clear(self, key: str) -> None:
        """Forget the import."""


@dataclass(frozen=True, slots=True)
class ImportStores:
    """The stores of one workspace that imports write to."""

    upserts: UserWriter
    tombstones: Tombstones
    events: EventWriter
    derivation: Deriver
    lists: ListWriter
    cursors: Cursors


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is: rows so far, the part of the file from 0 to 1, rows a second, and seconds left."""

    rows: int
    rejected: int
    share: float
    rate: float
    seconds_left: float | None


Watcher = Callable[[Progress], None]
"""Told after every batch."""

Indexer = Callable[[Sequence[str]], None]
"""Told the keys of the users that a batch has written; asks for them to be indexed."""
