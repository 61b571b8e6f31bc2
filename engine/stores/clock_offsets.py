"""How far the clocks of this process and of the broker's Redis are from MongoDB's."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import redis
from pymongo.database import Database

from engine.domain.document import Document


class ClockOffsets:
    """Compares clocks: each is asked once, and its answer dated in the middle of the round trip."""

    def __init__(self, database: Database[Document], broker: redis.Redis) -> None:
        self._mongo = database
        self._broker = broker

    def read(self, *, broker: bool = True) -> dict[str, float]:
        """Return by how many seconds `this` process and, if wanted, the `broker` are ahead of MongoDB.

        Negative: behind. A broker that does not answer is left out. Raises MongoDB's outages.
        """
        ours = -_ahead(self._mongo_now)
        return {"this": ours} | (self._of_broker(ours) if broker else {})

    def _of_broker(self, ours: float) -> dict[str, float]:
        try:
            return {"broker": ours + _ahead(self._broker_now)}
        except redis.RedisError:
            return {}

    def _mongo_now(self) -> float:
        at: datetime = self._mongo.client.admin.command("hello")["localTime"]
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()

    def _broker_now(self) -> float:
        seconds, micros = cast("tuple[Any, Any]", self._broker.time())
        return int(seconds) + int(micros) / 1e6


def _ahead(now: Callable[[], float]) -> float:
    """Return by how many seconds another clock is ahead of this process's."""
    before = time.time()
    theirs = now()
    return theirs - (before + time.time()) / 2
