"""Keep a channel's send rate (`rates:` of the policies), which all workers share.

A sender reserves a few mails at a time, just before it marks them. Reservations are spaced evenly, so no second gets
more than its share, and a killed worker wastes only a few mails of the rate. While Redis is away each process keeps its
own part of the rate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from engine.clock import Clock
from engine.pipeline.ports.messaging import SendRates
from engine.policy.policyset import PolicySet

SPACING: Final = 0.02
"""Seconds of the rate that one reservation covers: it limits how many mails begin at once."""

AHEAD: Final = 0.5
"""Longest time in seconds from a reservation to the moment at which its mails may begin."""

NAP: Final = 0.1
"""Seconds between two checks whether a waiting sender should still wait."""


class SendRateKeeper:
    """Makes senders wait until the rate lets their mails begin; all threads of a process share one keeper."""

    def __init__(self, rates: SendRates, policies: Callable[[], PolicySet], clock: Clock) -> None:
        self._rates = rates
        self._policies = policies
        self._clock = clock
        self._lock = threading.Lock()
        self._reserved_until: dict[str, float] = {}

    def limit(self, channel: str) -> float | None:
        """Return the channel's rate now (mails a second by all workers together); None if the policies set none."""
        rate = self._policies().rates.get(channel)
        return None if rate is None else rate.per_second_at(self._clock.system_now())

    def at_once(self, channel: str) -> int | None:
        """Return how many mails one reservation covers at most; None without a rate."""
        per_second = self.limit(channel)
        return None if per_second is None else max(1, int(per_second * SPACING))

    def permit(self, channel: str, count: int, lane: str, go_on: Callable[[], bool]) -> bool:
        """Reserve `count` mails and wait until they may begin; return False as soon as `go_on` returns False.

        `lane` is the delivering lane: while Redis is away, its processes divide the rate equally.
        """
        while (per_second := self.limit(channel)) is not None:
            answer = self._rates.take(channel, count, per_second, AHEAD)
            reserved, wait = answer if answer is not None else self._alone(channel, count, per_second, lane)
            if not self._wait(wait if reserved else max(NAP, wait - AHEAD), go_on):
                return False
            if reserved:
                return True
        return True

    def _alone(self, channel: str, count: int, per_second: float, lane: str) -> tuple[bool, float]:
        """Reserve at this process's part of the rate, without Redis: return what `SendRates.take` returns."""
        interval = count / per_second * self._policies().processes(lane)
        now = self._clock.monotonic()
        with self._lock:
            starts = max(self._reserved_until.get(channel, now + AHEAD), now)
            if starts - now > AHEAD:
                return False, starts - now
            self._reserved_until[channel] = starts + interval
        return True, starts - now

    def _wait(self, seconds: float, go_on: Callable[[], bool]) -> bool:
        until = self._clock.monotonic() + seconds
        pause = threading.Event()
        while (left := until - self._clock.monotonic()) > 0:
            if not go_on():
                return False
            pause.wait(min(left, NAP))
        return go_on()
