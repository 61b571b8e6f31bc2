"""A competent way: batches of 1000 shuffled ids, a projection, closures for the clauses, one insert_many a batch.

An experienced engineer writes this once the naive way has become too slow, without changing the data's layout: `$in` of
shuffled ids, only the needed fields, the audience turned into closures once, and writes acknowledged by a majority.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import yaml
from pymongo.database import Database
from pymongo.write_concern import WriteConcern

from bench.measure import Way
from bench.naive import leaf
from engine.domain.document import Document

Test: TypeAlias = Callable[[Document, int], bool]

BATCH: Final = 1_000
SEED: Final = 7
_FIELDS: Final = {"g": 1, "a.age": 1, "timezone": 1, "unsubscribed": 1}


def compiled(tree: Mapping[str, Any]) -> Test:
    """Return the audience as one closure."""
    tests: list[Test] = []
    for key, value in tree.items():
        if key in ("all", "any", "none"):
            parts = [compiled(branch) for branch in value]
            tests.append(_group(key, parts))
        else:
            conditions = value if isinstance(value, dict) else {"eq": value}
            tests.append(lambda user, as_of, f=key, c=conditions: leaf(f, c, user, as_of))  # type: ignore[misc]
    return lambda user, as_of: all(test(user, as_of) for test in tests)


def _group(kind: str, parts: Sequence[Test]) -> Test:
    if kind == "all":
        return lambda user, as_of: all(part(user, as_of) for part in parts)
    if kind == "any":
        return lambda user, as_of: any(part(user, as_of) for part in parts)
    return lambda user, as_of: not any(part(user, as_of) for part in parts)


class CompetentWay(Way):
    """The competent way as a side of the bench."""

    name = "competent"

    def __init__(self, database: Database[Document], keys: Sequence[str], audience: str, as_of: int) -> None:
        self._database, self._as_of = database, as_of
        self._keys = list(keys)
        random.Random(SEED).shuffle(self._keys)
        self._matches = compiled(yaml.safe_load(audience))

    @property
    def users(self) -> int:
        """The size of the sample."""
        return len(self._keys)

    def prepare(self) -> None:
        """Empty the enrolments of this way."""
        self._database["competent_enrolments"].drop()
        self._database.create_collection("competent_enrolments")

    def run(self) -> int:
        """Make one pass."""
        users = self._database["users"]
        enrolments = self._database["competent_enrolments"].with_options(write_concern=WriteConcern("majority"))
        entered = 0
        for start in range(0, len(self._keys), BATCH):
            keys = self._keys[start : start + BATCH]
            matching = [
                document
                for document in users.find({"_id": {"$in": keys}}, _FIELDS)
                if self._matches(document, self._as_of)
            ]
            if matching:
                enrolments.insert_many([self._stay(document["_id"]) for document in matching], ordered=False)
            entered += len(matching)
        return entered

    def _stay(self, user: str) -> Document:
        return {
            "_id": f"competent/{user}/0001",
            "campaign": "competent",
            "user": user,
            "entry": 1,
            "state": "active",
            "entered_at": self._as_of,
            "due_at": self._as_of,
            "outgoing": {"message": "hello", "state": "queued", "chosen_at": self._as_of, "attempts": 0},
        }

    def entered(self) -> set[str]:
        """Return the users who entered in the last pass."""
        return {str(document["user"]) for document in self._database["competent_enrolments"].find({}, {"user": 1})}
