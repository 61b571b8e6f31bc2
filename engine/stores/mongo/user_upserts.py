"""Write users from rows: create them, update what differs, leave the rest, and never revive one by accident."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from engine.domain.changes import Applied, RowOutcome, UserChange
from engine.domain.document import Document
from engine.stores.mongo.users import CREATED, DELETED, Edit, Users, names_of, steps_of

_CREATED: Final = (RowOutcome.CREATED,)
_UPDATED: Final = (RowOutcome.UPDATED,)
_UNCHANGED: Final = (RowOutcome.UNCHANGED,)

TOMBSTONE: Final = "this user was deleted, and an import does not revive users (pass --revive to create them again)"


class UserUpserts:
    """Applies batches of `UserChange`; `initial` are the derived fields of a user without events."""

    def __init__(self, users: Users, initial: Mapping[str, object]) -> None:
        self._users = users
        self._initial = dict(initial)

    def apply(self, changes: Sequence[UserChange], *, revive: bool = False) -> Applied:
        """Write a batch in order: a later row of the same user is applied on top of the earlier one.

        A row is `CREATED` for a new user, `UPDATED` if a value differs from the stored one (or from an earlier row's),
        else `UNCHANGED`. It is `REJECTED` for a tombstone, unless `revive`. Applying the batch again changes nothing.
        """
        by_key: dict[str, list[int]] = {}
        for number, change in enumerate(changes):
            by_key.setdefault(change.key, []).append(number)
        outcomes = [RowOutcome.UNCHANGED] * len(changes)
        reasons: dict[int, str] = {}
        overwriting: set[str] = set()

        def plan(keys: Collection[str], documents: Mapping[str, Document]) -> dict[str, Edit]:
            edits: dict[str, Edit] = {}
            for key in keys:
                numbers, document = by_key[key], documents.get(key)
                if document is not None and document.get("deleted") and not revive:
                    reasons.update(dict.fromkeys(numbers, TOMBSTONE))
                    results: Sequence[RowOutcome] = [RowOutcome.REJECTED] * len(numbers)
                else:
                    edit, results = fold(document, [changes[number].fields for number in numbers], self._initial)
                    if edit is not None:
                        edits[key] = edit
                    elif key in overwriting:
                        # A repeated call has nothing left to do: our own write got through, so the first outcome
                        # remains.
                        continue
                for number, result in zip(numbers, results, strict=True):
                    outcomes[number] = result
            overwriting.clear()
            overwriting.update(edits.keys() & documents.keys())
            return edits

        paths = {path for names in {tuple(change.fields) for change in changes} for path in names}
        written = self._users.rewrite(by_key, plan, dict.fromkeys(("rev", "deleted", *paths), 1))
        return Applied(outcomes, set(written), reasons)


def fold(
    document: Document | None, rows: Sequence[Mapping[str, object]], initial: Mapping[str, object]
) -> tuple[Edit | None, Sequence[RowOutcome]]:
    """Combine the rows of one user into one edit, with an outcome for each row; the edit is None if nothing differs."""
    if len(rows) == 1 and (document is None or "deleted" not in document):
        return _fold_one(document, rows[0], initial)
    results: list[RowOutcome] = []
    working: dict[str, object] = {}
    fresh = document is None or bool(document.get("deleted"))
    if fresh:
        working.update(initial)
        if document is not None:
            working["deleted"] = None
    for number, fields in enumerate(rows):
        differs = False
        for path, value in fields.items():
            now = working[path] if path in working else None if fresh else stored(document or {}, path)
            if not same(now, value):
                working[path] = value
                differs = True
        created = fresh and number == 0
        results.append(RowOutcome.CREATED if created else RowOutcome.UPDATED if differs else RowOutcome.UNCHANGED)
    if not fresh:
        working = differing(document or {}, working)
        if not working:
            return None, results
    names = [name for name in names_of(tuple(working)) if name != DELETED]
    if document is not None and fresh:
        names.insert(0, CREATED)
    return Edit(working, names), results


def _fold_one(
    document: Document | None, fields: Mapping[str, object], initial: Mapping[str, object]
) -> tuple[Edit | None, Sequence[RowOutcome]]:
    """Do what `fold` does for a single row, which is the case for nearly every row of an import."""
    new: dict[str, object]
    if document is not None:
        new = differing(document, fields)
        return (Edit(new, names_of(tuple(new))), _UPDATED) if new else (None, _UNCHANGED)
    new = {**initial, **fields}
    if None in new.values():
        new = {path: value for path, value in new.items() if value is not None}
    return Edit(new, names_of(tuple(new))), _CREATED


def differing(document: Mapping[str, Any], fields: Mapping[str, object]) -> dict[str, object]:
    """Return those of `fields` whose values differ from the document."""
    edits: dict[str, object] = {}
    for path, head, rest in steps_of(tuple(fields)):
        value, now = fields[path], document.get(head)
        if rest:
            now = now.get(rest) if isinstance(now, dict) else None
        if now is not value and (now != value or (type(now) is not type(value) and not same(now, value))):
            edits[path] = value
    return edits


def stored(document: Mapping[str, Any], path: str) -> object:
    """Return the value at a document path of at most two steps; None if there is none."""
    head, _, rest = path.partition(".")
    value = document.get(head)
    if not rest:
        return value
    return value.get(rest) if isinstance(value, dict) else None


def same(left: object, right: object) -> bool:
    """Whether two stored values are equal and of the same type: True is not 1, and 1 is not 1.0."""
    if left != right:
        return False
    return isinstance(left, bool) == isinstance(right, bool) and isinstance(left, float) == isinstance(right, float)
