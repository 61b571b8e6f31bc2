"""Let this process's bulk work pass the gate: call by call, as much as its share allows.

Every call of bulk work waits until the process owes nothing. It then owes the time that it took, and what is owed is
paid off at the share's rate: at a share of 0.25, a call of 10 ms is followed by 30 ms of rest. At a share of 2, two
calls run at a time without rest.
"""

from __future__ import annotations

import math
import threading
from typing import Final

from engine.clock import Clock
from engine.decisions.gate import gated_size

LONGEST_WAIT: Final = 1.0
"""Seconds that one call waits at most, whatever the share: a worker must keep its leases and notice a stop."""

CREDIT: Final = 0.05
"""Seconds of unused share that a process may use later: about one batch, so that an idle process gets no burst."""

UNLIMITED: Final = math.inf
"""The longest time of an operation where the gate sets no limit."""


class BulkGate:
    """The gate as this process's threads pass it; `GateKeeper` sets the share."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._share: float | None = None
        self._quantum = UNLIMITED
        self._owed = 0.0
        self._owed_at = clock.monotonic()
        self._inside = 0
        self._wanted = 0
        self._most_wanted = 0
        self._used = 0.0

    @property
    def closed(self) -> bool:
        """Whether no bulk work may begin at all."""
        return self._share == 0.0

    @property
    def limited(self) -> bool:
        """Whether this process has a share to keep."""
        return self._share is not None

    def set_share(self, share: float | None, quantum: float) -> None:
        """Set the share (operations at a time; None: no limit) and the longest time of one operation (s)."""
        with self._changed:
            self._pay()
            self._share = share
            self._quantum = UNLIMITED if share is None else quantum
            if share is None:
                self._owed = 0.0
            self._changed.notify_all()

    def taken(self) -> tuple[int, float]:
        """Return the most threads that wanted to work at once, and the seconds used, since the last call."""
        with self._changed:
            answer = self._most_wanted, self._used
            self._most_wanted, self._used = self._wanted, 0.0
            return answer

    def size(self, size: int, seconds_each: float | None) -> int:
        """Return how many of `size` users or deliveries to work on at once; `size` itself without a limit.

        `seconds_each` is the measured time of one.
        """
        return gated_size(size, seconds_each, self._quantum) if self.limited else size

    def enter(self) -> None:
        """Wait until a call may begin, at most `LONGEST_WAIT`."""
        until = self._clock.monotonic() + LONGEST_WAIT
        with self._changed:
            self._wanted += 1
            self._most_wanted = max(self._most_wanted, self._wanted)
            while (pause := self._pause()) > 0:
                left = until - self._clock.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(pause, left))
            self._inside += 1

    def leave(self, seconds: float) -> None:
        """Report that a call has ended, after `seconds`."""
        with self._changed:
            self._pay()
            self._wanted -= 1
            self._inside -= 1
            self._used += seconds
            if self._share is not None:
                self._owed += seconds
            self._changed.notify()

    def _pause(self) -> float:
        """Return how long (s) the next call should wait before it asks again; 0 if it may begin."""
        if self._share is None:
            return 0.0
        self._pay()
        if self._share == 0.0 or self._inside >= max(1, math.ceil(self._share)):
            return LONGEST_WAIT
        return max(0.0, self._owed / self._share)

    def _pay(self) -> None:
        """Pay off what is owed at the share's rate since the last time."""
        now = self._clock.monotonic()
        if self._share is not None:
            self._owed = max(-CREDIT * self._share, self._owed - self._share * (now - self._owed_at))
        self._owed_at = now
