"""Current failures of process loops: one small document for each process and loop that fails at present.

    {_id: "PROCESS/LOOP", process, loop, reason, since, last, count}

`since` and `last` are written by MongoDB's clock. A document is deleted when the loop works again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from pymongo.collection import Collection
from pymongo.database import Database

from engine.clock import Instant, millis
from engine.domain.document import Document
from engine.query_metrics import named_queries
from engine.stores.mongo.client import MAJORITY

NAME: Final = "process_failures"


@dataclass(frozen=True, slots=True)
class ProcessFailure:
    """A loop (`feed`, `index`, `ship`, ...) of a process that fails at present.

    `reason` is a sentence without personal data. `since` and `last` are the system time (ms) of the first and the
    latest failure, and `count` is the number of failures.
    """

    process: str
    loop: str
    reason: str
    since: Instant
    last: Instant
    count: int


@named_queries("process_failures")
class ProcessFailures:
    """The currently failing loops of all processes."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection(NAME, write_concern=MAJORITY)

    def note(self, process: str, loop: str, reason: str, times: int = 1) -> None:
        """Record that `loop` of `process` failed `times` times for `reason`. Index: `_id`."""
        now = {"$toLong": "$$NOW"}
        update: list[Document] = [
            {
                "$set": {
                    "process": {"$literal": process},
                    "loop": {"$literal": loop},
                    "reason": {"$literal": reason},
                    "since": {"$ifNull": ["$since", now]},
                    "last": now,
                    "count": {"$add": [{"$ifNull": ["$count", 0]}, times]},
                }
            }
        ]
        self._all.update_one({"_id": f"{process}/{loop}"}, update, upsert=True)

    def clear(self, process: str, loop: str) -> None:
        """Record that `loop` of `process` works again. Index: `_id`."""
        self._all.delete_one({"_id": f"{process}/{loop}"})

    def everything(self) -> list[ProcessFailure]:
        """Return every failure, the oldest first; a handful of documents, all read through `_id`."""
        failures = [
            ProcessFailure(raw["process"], raw["loop"], raw["reason"], raw["since"], raw["last"], raw["count"])
            for raw in self._all.find({"_id": {"$gt": ""}})
        ]
        return sorted(failures, key=lambda failure: failure.since)

    def forget_older(self, than: timedelta) -> int:
        """Delete failures not recorded again for `than`: their process is gone. Return how many. Index: `_id`."""
        old = {"$lt": ["$last", {"$subtract": [{"$toLong": "$$NOW"}, millis(than)]}]}
        return self._all.delete_many({"_id": {"$gt": ""}, "$expr": old}).deleted_count


NAMED: Final[Mapping[str, str]] = {"process_failures.everything": "_id_", "process_failures.forget_older": "_id_"}
"""The named queries and the index each relies on."""
