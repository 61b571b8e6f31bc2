"""Failed log-ins, shared by all web processes: how many there were in a row, and until when the next try is refused.

Keys: `tidegate:logins:WHOM:failures` (a count) and `tidegate:logins:WHOM:wait` (it exists while the wait lasts).
`WHOM` is a hash of a name or an address.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from hashlib import blake2b

import redis

from engine.clock import millis


class RedisFailedLogins:
    """The failed log-ins of an installation."""

    def __init__(self, client: redis.Redis, namespace: str = "") -> None:
        self._client = client
        self._namespace = namespace

    def wait(self, whom: Iterable[str]) -> float:
        """Return the seconds until the next try of the most delayed of `whom`; 0 if all may try now."""
        with self._client.pipeline(transaction=False) as pipe:
            for who in whom:
                pipe.pttl(self._key(who, "wait"))
            return max((max(0, left) / 1e3 for left in pipe.execute()), default=0.0)

    def failed(self, who: str, remembered: timedelta) -> int:
        """Record a failure; return how many there were in a row within `remembered`."""
        key = self._key(who, "failures")
        with self._client.pipeline() as pipe:
            pipe.incr(key)
            pipe.pexpire(key, millis(remembered))
            return int(pipe.execute()[0])

    def delay(self, who: str, wait: timedelta) -> None:
        """Refuse tries for `wait` from now."""
        self._client.set(self._key(who, "wait"), 1, px=max(1, millis(wait)))

    def forget(self, who: str) -> None:
        """Forget the failures, after a log-in that succeeded."""
        self._client.delete(self._key(who, "failures"), self._key(who, "wait"))

    def _key(self, who: str, what: str) -> str:
        return f"{self._namespace}tidegate:logins:{blake2b(who.encode(), digest_size=12).hexdigest()}:{what}"
