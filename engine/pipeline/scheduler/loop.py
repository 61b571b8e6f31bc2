"""The clock's loop: tick, wait for a wake-up, repeat. Two clocks may run: a lease picks one, an overlap is harmless."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from engine.clock import Clock
from engine.pipeline.loop_failures import LoopFailures
from engine.pipeline.ports.messaging import WakeupWaiter
from engine.pipeline.ports.work import NamedLeases, Tick
from engine.telemetry.events import emit

LEASE: Final = timedelta(seconds=5)
"""Another clock takes over when the holder has not renewed its lease for this long."""

IDLE: Final = timedelta(seconds=1)
"""The longest wait between two ticks when nothing happens; a wake-up ends it."""

BETWEEN: Final = 0.02
"""Minimum seconds between two ticks: one tick answers all wake-ups that arrive meanwhile."""


@dataclass
class Chore:
    """A periodic job of the clock; `every` is in seconds."""

    every: float
    run: Callable[[], object]
    last: float = float("-inf")


class SchedulerLoop:
    """Runs ticks until the process stops.

    `owner` names this clock across its restarts, so that a killed clock takes its own lease up again at once.
    """

    def __init__(
        self,
        tick: Tick,
        leases: NamedLeases,
        wakeup: WakeupWaiter,
        clock: Clock,
        *,
        owner: str,
        every: timedelta,
        chores: Sequence[Chore],
        outages: tuple[type[BaseException], ...],
        failures: LoopFailures,
    ) -> None:
        self._failures = failures
        self._tick = tick
        self._leases = leases
        self._wakeup = wakeup
        self._clock = clock
        self._every = every
        self._chores = list(chores)
        self._outages = outages
        self._owner = owner

    def _do_chores(self) -> None:
        for chore in self._chores:
            if self._clock.monotonic() - chore.last >= chore.every:
                chore.last = self._clock.monotonic()
                chore.run()

    def run(self, stopping: Callable[[], bool], pause: Callable[[float], object]) -> None:
        """Tick until `stopping`; `pause` sleeps for some seconds, or less when the process is asked to stop."""
        wait = self._every
        while not stopping():
            try:
                if self._leases.hold("clock", self._owner, LEASE) is None:
                    pause(IDLE.total_seconds())
                    continue
                busy = self._tick.run() > 0
                self._do_chores()
                self._failures.worked("clock")
            except self._outages as error:
                emit("engine.failed", process="clock", reason="store_away", error=error)
                self._failures.failed("clock", error)
                pause(IDLE.total_seconds())
                continue
            except Exception as error:  # noqa: BLE001 - one bad campaign must not stop the clock of all others
                emit("engine.failed", process="clock", reason=type(error).__name__, error=error)
                self._failures.failed("clock", error)
                pause(IDLE.total_seconds())
                continue
            wait = self._every if busy else min(IDLE, wait * 2)
            if self._wakeup.wait(wait):
                wait = self._every
            pause(BETWEEN)
        self._leases.give_up("clock", self._owner)
