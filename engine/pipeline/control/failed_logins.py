"""Failed log-ins in the memory of one process: while Redis, which all processes share, does not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final

MOST: Final = 10_000
"""Names and addresses that are remembered; beyond them the oldest are forgotten."""


class MemoryFailedLogins:
    """Counts failures as `engine.stores.redis.failed_logins` does; `now` returns seconds that never go back."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._failures: dict[str, tuple[int, float]] = {}
        self._waits: dict[str, float] = {}

    def wait(self, whom: Iterable[str]) -> float:
        """Return the seconds until the next try of the most delayed of `whom`; 0 if all may try now."""
        now = self._now()
        return max((max(0.0, self._waits.get(who, 0.0) - now) for who in whom), default=0.0)

    def failed(self, who: str, remembered: timedelta) -> int:
        """Record a failure; return how many there were in a row within `remembered`."""
        now = self._now()
        count, until = self._failures.pop(who, (0, 0.0))
        count = count + 1 if now < until else 1
        self._failures[who] = (count, now + remembered.total_seconds())
        while len(self._failures) > MOST:
            self.forget(next(iter(self._failures)))
        return count

    def delay(self, who: str, wait: timedelta) -> None:
        """Refuse tries for `wait` from now."""
        self._waits[who] = self._now() + wait.total_seconds()

    def forget(self, who: str) -> None:
        """Forget the failures, after a log-in that succeeded."""
        self._failures.pop(who, None)
        self._waits.pop(who, None)
