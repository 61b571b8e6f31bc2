"""Protocols for the stores that an import needs, and for the callers that watch it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.domain.changes import Applied, NewEvent, UserChange


class UserWriter(Protocol):
    """Writes users (`engine.stores.mongo.user_upserts.UserUpserts`)."""

    def apply(self, changes: Sequence[UserChange], *, revive: bool = False) -> Applied:
        """Write a batch of rows in order; return an outcome per row."""


class Tombstones(Protocol):
    """Knows deleted users (`engine.stores.mongo.users.Users`)."""

    def deleted(self, keys: Collection[str]) -> set[str]:
        """Return those of `keys` that are tombstones."""


class EventWriter(Protocol):
    """Writes events (`engine.stores.mongo.events.Events`)."""

    def record(self, events: Sequence[NewEvent]) -> list[bool]:
        """Store the events that are not stored yet; return for each event whether it is new."""


class Deriver(Protocol):
    """Derives fields of users from their events (`engine.stores.mongo.event_aggregates.Derivation`)."""

    def derive(self, keys: Collection[str]) -> set[str]:
        """Update the derived fields of users from their events; return the users written."""


class ListWriter(Protocol):
    """Writes lists (`engine.stores.mongo.lists.Lists`)."""

    def add(self, name: str, keys: Sequence[str], *, run: str | None = None) -> Applied:
        """Make users members; `run` marks the members that a replacing import names."""

    def remove(self, name: str, keys: Sequence[str]) -> Applied:
        """End memberships."""

    def remove_others(self, workspace: str, name: str, run: str, limit: int) -> tuple[int, set[str]]:
        """End up to `limit` memberships that `run` has not named; return how many, and the users written."""


class Cursors(Protocol):
    """Stores how far imports are (`engine.stores.mongo.import_cursors.ImportCursors`)."""

    def load(self, key: str) -> Mapping[str, Any] | None:
        """Return the last saved state, or None."""

    def save(self, key: str, state: Mapping[str, object]) -> None:
        """Save the state, which moves the cursor."""

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
    """The progress of an import: rows so far, the share of the file from 0 to 1, rows a second, and seconds left."""

    rows: int
    rejected: int
    share: float
    rate: float
    seconds_left: float | None


Watcher = Callable[[Progress], None]
"""Called after every batch."""
