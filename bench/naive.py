"""The naive way: one `find_one` per user, a tree walk with `operator`, one insert per match.

This is a first version of such a feature, written in the obvious way: no batch, no projection, one user after another
in the order of their numbers. It shares nothing with the engine but the documents it reads and the audience's YAML. Its
writes are as durable as the engine's (majority).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import yaml
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.write_concern import WriteConcern

from bench.measure import Way
from engine.domain.document import Document

_DAY_MS: Final = 86_400_000
_PATHS: Final = {
    "orders_count": ("g", "orders_count"),
    "orders_value": ("g", "orders_value"),
    "last_order_at": ("g", "last_order_at"),
    "first_order_at": ("g", "first_order_at"),
    "age": ("a", "age"),
    "timezone": ("timezone",),
    "unsubscribed": ("unsubscribed",),
}
_SCALES: Final = {"orders_value": 100}
_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "eq": operator.eq,
    "gte": operator.ge,
    "in": lambda value, choices: value in choices,
}


def matches(tree: Mapping[str, Any], user: Mapping[str, Any], as_of: int) -> bool:
    """Walk the audience's tree over one user document; `as_of` in milliseconds since the epoch."""
    for key, value in tree.items():
        if key == "all":
            held = all(matches(branch, user, as_of) for branch in value)
        elif key == "any":
            held = any(matches(branch, user, as_of) for branch in value)
        elif key == "none":
            held = not any(matches(branch, user, as_of) for branch in value)
        else:
            held = leaf(key, value if isinstance(value, dict) else {"eq": value}, user, as_of)
        if not held:
            return False
    return True


def leaf(field: str, conditions: Mapping[str, Any], user: Mapping[str, Any], as_of: int) -> bool:
    """Return whether a field of the user meets every condition; a missing field meets none."""
    value: Any = user
    for step in _PATHS[field]:
        value = value.get(step) if isinstance(value, dict) else None
    if value is None:
        return False
    for name, condition in conditions.items():
        if name == "older_than":
            held = value <= as_of - int(condition.removesuffix("d")) * _DAY_MS
        elif isinstance(condition, int) and not isinstance(condition, bool):
            held = _OPERATORS[name](value, condition * _SCALES.get(field, 1))
        else:
            held = _OPERATORS[name](value, condition)
        if not held:
            return False
    return True


def run(database: Database[Document], keys: Sequence[str], audience: str, as_of: int) -> int:
    """Make one pass over the users of `keys`; return the number of matches.

    Each match gets an enrolment with a chosen message.
    """
    tree = yaml.safe_load(audience)
    users: Collection[Document] = database["users"]
    enrolments = database["naive_enrolments"].with_options(write_concern=WriteConcern("majority"))
    entered = 0
    for key in keys:
        user = users.find_one({"_id": key})
        if user is not None and matches(tree, user, as_of):
            enrolments.insert_one(
                {
                    "_id": f"naive/{user['_id']}/0001",
                    "campaign": "naive",
                    "user": user["_id"],
                    "entry": 1,
                    "state": "active",
                    "entered_at": as_of,
                    "due_at": as_of,
                    "outgoing": {"message": "hello", "state": "queued", "chosen_at": as_of, "attempts": 0},
                }
            )
            entered += 1
    return entered


class NaiveWay(Way):
    """The naive way as a side of the bench: one process, this one, and a stated sample of the users."""

    name = "naive"

    def __init__(self, database: Database[Document], keys: Sequence[str], audience: str, as_of: int) -> None:
        self._database, self._keys, self._audience, self._as_of = database, keys, audience, as_of

    @property
    def users(self) -> int:
        """The size of the sample."""
        return len(self._keys)

    def prepare(self) -> None:
        """Empty the enrolments of this way."""
        self._database["naive_enrolments"].drop()
        self._database.create_collection("naive_enrolments")

    def run(self) -> int:
        """Make one pass."""
        return run(self._database, self._keys, self._audience, self._as_of)

    def entered(self) -> set[str]:
        """Return the users who entered in the last pass."""
        return {str(document["user"]) for document in self._database["naive_enrolments"].find({}, {"user": 1})}
