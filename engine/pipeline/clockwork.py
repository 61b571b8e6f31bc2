"""The clock's loop: tick, wait for the bell, tick. Two may run: a lease picks one, and an overlap is harmless."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final
from uuid import uuid4

from engine.clock import Clock
from engine.pipeline.ports import Heard, NamedLeases, Tick
from engine.telemetry.events import emit

LEASE: Final = timedelta(seconds=5)
"""After this long without its holder another clock takes over."""

IDLE: Final = timedelta(seconds=1)
"""The longest wait between two ticks when nothing happens; a ring ends it."""

BETWEEN: Final = 0.02
"""Seconds between two ticks at least: rings that come meanwhile are answered by one tick."""

MAINTAIN_EVERY: Final = 3_600.0
"""Seconds between two clean-ups of what is over."""


class Clockwork:
    """Runs ticks until told to stop."""

    def __init__(
        self,
        tick: Tick,
        leases: NamedLeases,
        bell: Heard,
        clock: Clock,
        *,
        every: timedelta,
        maintain: Callable[[], None],
        outages: tuple[type[BaseException], ...],
    ) -> None:
        self._tick = tick
        self._leases = leases
        self._bell = bell
        self._clock = clock
        self._every = every
        self._maintain = maintain
        self._outages = outages
        self._owner = uuid4().hex

    def run(self, stopping: Callable[[], bool], pause: Callable[[float], object]) -> None:
        """Tick until `stopping`; `pause` sleeps for seconds, less when the process is told to stop."""
        wait, maintained = self._every, self._clock.monotonic()
        while not stopping():
            try:
                if self._leases.hold("clock", self._owner, LEASE) is None:
                    pause(IDLE.total_seconds())
                    continue
                busy = self._tick.run() > 0
                if self._clock.monotonic() - maintained > MAINTAIN_EVERY:
                    maintained = self._clock.monotonic()
                    self._maintain()
            except self._outages as error:
                emit("engine.failed", process="clock", reason="store_away", error=error)
                pause(IDLE.total_seconds())
                continue
            except Exception as error:
                emit("engine.failed", process="clock", reason=type(error).__name__, error=error)
                pause(IDLE.total_seconds())
                continue
            wait = self._every if busy else min(IDLE, wait * 2)
            if self._bell.wait(wait):
                wait = self._every
            pause(BETWEEN)
        self._leases.give_up("clock", self._owner)
