"""Wake-up of the clock: a list in the broker's Redis on which the clock waits, so that it need not wait out its tick.

Key: `tidegate:bell` (list, at most two entries, expires after a minute). Losing it costs one tick.
"""

from __future__ import annotations

from datetime import timedelta
from threading import Event
from typing import Final

import redis

KEY: Final = "tidegate:bell"
LONGEST: Final = 60
"""Seconds after which a wake-up that nobody received expires."""


class RedisWakeup:
    """Sends wake-ups through Redis. It never raises, because a lost wake-up costs only one tick."""

    def __init__(self, client: redis.Redis, namespace: str = "") -> None:
        self._client = client
        self._key = f"{namespace}{KEY}"

    def ring(self) -> None:
        """Wake the clock."""
        try:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.lpush(self._key, b"1")
                pipe.ltrim(self._key, 0, 1)
                pipe.expire(self._key, LONGEST)
                pipe.execute()
        except redis.RedisError:
            return

    def wait(self, longest: timedelta) -> bool:
        """Wait up to `longest` for a wake-up; return True if one came. If Redis is away, wait the whole time."""
        try:
            return self._client.blpop([self._key], timeout=longest.total_seconds()) is not None
        except redis.RedisError:
            return Event().wait(longest.total_seconds())  # nobody sets it: the clock must not spin meanwhile
