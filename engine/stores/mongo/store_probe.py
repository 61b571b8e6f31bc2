"""Measure MongoDB as its other users see it: a read by key, a durable write, and what the server says of itself."""

from __future__ import annotations

from typing import Any, Final

from pymongo.database import Database
from pymongo.errors import OperationFailure

from engine.domain.document import Document
from engine.stores.mongo.client import MAJORITY

COLLECTION: Final = "gate"
_PROBE: Final = {"_id": "probe"}


class MongoProbe:
    """Probes one MongoDB; its collection `gate` holds one small document."""

    def __init__(self, database: Database[Document]) -> None:
        self._database = database
        self._all = database.get_collection(COLLECTION, write_concern=MAJORITY)

    def read(self) -> None:
        """Read the document by its key."""
        self._all.find_one(_PROBE)

    def write(self) -> None:
        """Write the document; a majority makes it durable."""
        self._all.update_one(_PROBE, {"$inc": {"count": 1}}, upsert=True)

    def health(self) -> tuple[float | None, int | None]:
        """Return how far the slowest healthy secondary is behind (s), and how many operations wait in the queue.

        None stands for what the login may not read (both need the role `clusterMonitor`) or what is not there.
        """
        return self._lag(), self._queue()

    def _lag(self) -> float | None:
        told = self._ask("replSetGetStatus")
        members: list[Any] = [] if told is None else told.get("members", [])
        primary = [one["optimeDate"] for one in members if one.get("state") == 1]
        behind = [one["optimeDate"] for one in members if one.get("state") == 2 and one.get("health") == 1]
        if not primary or not behind:
            return None
        return max(0.0, float((primary[0] - min(behind)).total_seconds()))

    def _queue(self) -> int | None:
        told = self._ask("serverStatus", **dict.fromkeys(("repl", "metrics", "locks", "wiredTiger", "tcmalloc"), 0))
        if told is None:
            return None
        return int(told.get("globalLock", {}).get("currentQueue", {}).get("total", 0))

    def _ask(self, command: str, **options: int) -> Document | None:
        try:
            return self._database.client.admin.command({command: 1, **options})
        except OperationFailure:
            return None
