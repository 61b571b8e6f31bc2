"""Values that a user document contains about the user's events, derived from the stored events, never incremented.

They are written only if the user still has the revision that was read before the events, so the last writer has always
seen every event. Events that are sent twice, out of order, or resumed after a kill therefore produce the same user.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from engine.catalogue.catalogue import Catalogue
from engine.domain.document import Document
from engine.domain.keys import HIGHEST, bound_behind
from engine.stores.mongo.events import Events, Summary
from engine.stores.mongo.user_upserts import same, stored
from engine.stores.mongo.users import Edit, Users

INT64: Final = (-(1 << 63), (1 << 63) - 1)
"""A sum beyond 64 bits stays at the bound. No store holds more, and every comparison that fits in 64 bits stays
correct."""

AT_A_TIME: Final = 1_000
"""Users in one aggregation: counting a history of some hundred events each takes about a second."""

NOTHING: Final = Summary(0, 0, 0, {})


def initial_fields(catalogue: Catalogue) -> dict[str, object]:
    """Return the derived fields of a user without events, by document path: counts and sums 0, no instants."""
    return {path: value for path, value in aggregate_fields(catalogue, {}).items() if value is not None}


def aggregate_fields(catalogue: Catalogue, summaries: Mapping[str, Summary]) -> dict[str, object]:
    """Return every aggregate of the catalogue by document path, from one user's summaries; None if it is missing."""
    fields: dict[str, object] = {}
    for aggregate in catalogue.aggregates.values():
        summary = summaries.get(aggregate.event, NOTHING)
        value: int | None
        match aggregate.kind:
            case "count":
                value = summary.count
            case "first":
                value = summary.first if summary.count else None
            case "last":
                value = summary.last if summary.count else None
            case "sum":
                exact = summary.sums.get(aggregate.property or "", 0)
                value = min(max(exact, INT64[0]), INT64[1])
        fields[f"g.{aggregate.name}"] = value
    return fields


class Derivation:
    """Derives aggregates (`g`) and event summaries (`e`) of users for one catalogue."""

    def __init__(self, users: Users, events: Events, catalogue: Catalogue) -> None:
        self._users = users
        self._events = events
        self._catalogue = catalogue
        self._summed = {
            aggregate.property
            for aggregate in catalogue.aggregates.values()
            if aggregate.kind == "sum" and aggregate.property
        }

    def derive(self, keys: Collection[str], *, create: bool = True) -> set[str]:
        """Update users from their stored events; return the keys of those that were written.

        An unknown user is created with only the id (unless `create` is False). Events of a deleted user are removed,
        because they were stored during the deletion.
        """
        written: set[str] = set()
        ordered = sorted(keys)
        for first in range(0, len(ordered), AT_A_TIME):
            written |= self._derive(ordered[first : first + AT_A_TIME], create=create)
        return written

    def _derive(self, keys: Collection[str], *, create: bool) -> set[str]:
        deleted: set[str] = set()

        def plan(chunk: Collection[str], documents: Mapping[str, Document]) -> dict[str, Edit]:
            summaries = self._events.summaries(chunk, self._summed)
            edits: dict[str, Edit] = {}
            for key in chunk:
                document = documents.get(key)
                if document is not None and document.get("deleted"):
                    deleted.add(key)
                elif document is not None or (create and key in summaries):
                    edit = self._edit(document or {}, summaries.get(key, {}))
                    if document is None or edit.fields:
                        edits[key] = edit
            return edits

        written = set(self._users.rewrite(keys, plan, {"rev": 1, "deleted": 1, "g": 1, "e": 1}))
        if deleted:
            self._events.erase(deleted)
        return written

    def derive_all(self, size: int = 1_000) -> Iterator[set[str]]:
        """Derive every user of the workspace, batch by batch, after the catalogue has got another aggregate."""
        workspace, first = self._catalogue.workspace, "0"
        while True:
            batch = [
                document["_id"] for document in self._users.read_range(workspace, first, HIGHEST, size, {"_id": 1})
            ]
            if not batch:
                return
            yield self.derive(batch)
            first = bound_behind(batch[-1])

    def _edit(self, document: Document, summaries: Mapping[str, Summary]) -> Edit:
        fields: dict[str, object] = {}
        names: list[str] = []
        for path, value in aggregate_fields(self._catalogue, summaries).items():
            if not same(stored(document, path), value):
                fields[path] = value
                names.append(path.partition(".")[2])
        before: Mapping[str, object] = document.get("e") or {}
        for event in sorted(before.keys() | summaries.keys()):
            summary = summaries.get(event)
            now = {"n": summary.count, "first": summary.first, "last": summary.last} if summary else None
            if before.get(event) != now:
                fields[f"e.{event}"] = now
                names.append(f"event:{event}")
        return Edit(fields, names)
