"""Targets of an import: users, events or a list. Each reads a row and writes a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from engine.domain.changes import Applied, NewEvent, RowOutcome, UserChange
from engine.pipeline.importing.ports import ImportStores
from engine.pipeline.importing.rows import EventRows, ListRows, UserRows, Values

DELETED_USER = "the user was deleted, and the engine stores nothing about a deleted user"

Change = TypeVar("Change")


class Target(Protocol[Change]):
    """One kind of import: `read` raises `RowFaultError`; repeating an `apply` changes nothing more."""

    def read(self, values: Values) -> Change:
        """Read one row as a change."""

    def apply(self, changes: Sequence[Change]) -> Applied:
        """Write a batch; return an outcome per change."""

    def finish(self) -> tuple[int, set[str]]:
        """Do a piece of the work at the end; return how many memberships it removed, and the users written."""

    @property
    def rows(self) -> UserRows | EventRows | ListRows:
        """Return the reader of the rows."""


class UserTarget:
    """Creates and updates users."""

    def __init__(self, rows: UserRows, stores: ImportStores, *, revive: bool) -> None:
        self.rows = rows
        self.read = rows.read
        self._stores = stores
        self._revive = revive

    def apply(self, changes: Sequence[UserChange]) -> Applied:
        """Upsert by key."""
        return self._stores.upserts.apply(changes, revive=self._revive)

    def finish(self) -> tuple[int, set[str]]:
        """Return 0: nothing remains to do."""
        return 0, set()


class EventTarget:
    """Stores each event once, and updates the derived fields of its user."""

    def __init__(self, rows: EventRows, stores: ImportStores) -> None:
        self.rows = rows
        self.read = rows.read
        self._stores = stores

    def apply(self, changes: Sequence[NewEvent]) -> Applied:
        """Store events, then derive, also for events stored before, because a kill may have come in between."""
        gone = self._stores.tombstones.deleted({event.user for event in changes})
        kept = [event for event in changes if event.user not in gone]
        fresh = iter(self._stores.events.record(kept))
        touched = self._stores.derivation.derive({event.user for event in kept})
        outcomes: list[RowOutcome] = []
        reasons: dict[int, str] = {}
        for number, event in enumerate(changes):
            if event.user in gone:
                outcomes.append(RowOutcome.REJECTED)
                reasons[number] = DELETED_USER
            else:
                outcomes.append(RowOutcome.CREATED if next(fresh) else RowOutcome.REPEATED)
        return Applied(outcomes, touched, reasons)

    def finish(self) -> tuple[int, set[str]]:
        """Return 0: nothing remains to do."""
        return 0, set()


class ListTarget:
    """Adds members to a list, removes them, or replaces the list (`run` marks the members that the file names)."""

    def __init__(self, rows: ListRows, stores: ImportStores, workspace: str, name: str, mode: str, run: str) -> None:
        self.rows = rows
        self.read = rows.read
        self._lists = stores.lists
        self._workspace = workspace
        self._name = name
        self._mode = mode
        self._run = run

    def apply(self, changes: Sequence[str]) -> Applied:
        """Add or remove one batch of members."""
        if self._mode == "remove":
            return self._lists.remove(self._name, changes)
        return self._lists.add(self._name, changes, run=self._run if self._mode == "replace" else None)

    def finish(self) -> tuple[int, set[str]]:
        """In mode `replace`, end up to 5000 memberships that the file does not name; return 0 once none is left."""
        if self._mode != "replace":
            return 0, set()
        return self._lists.remove_others(self._workspace, self._name, self._run, 5_000)
