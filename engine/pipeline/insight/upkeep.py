"""Work of the clock that its tick must not wait for: a thread that runs some steps again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from engine.clock import Clock
from engine.telemetry.events import emit

EVERY: Final = 1.0
"""Seconds between two rounds, if no step had more to do."""

ALONE: Final = 5.0
"""Seconds after the last `poke` in which the thread goes on: then another clock holds the lease."""


class Upkeep:
    """Runs steps in a thread, as long as the clock's loop pokes it. A step returns whether it has more to do."""

    def __init__(
        self, steps: Sequence[Callable[[], bool]], clock: Clock, outages: tuple[type[BaseException], ...]
    ) -> None:
        self._steps = steps
        self._clock = clock
        self._outages = outages
        self._stop = threading.Event()
        self._poked = float("-inf")
        self._thread: threading.Thread | None = None
        self._failed: set[str] = set()

    def poke(self) -> None:
        """Say that this process is the clock; begin the thread at the first call."""
        self._poked = self._clock.monotonic()
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)
            self._thread.start()

    def stopping(self) -> bool:
        """Whether the thread is asked to end."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End the thread after the query that it waits for; safe to repeat, and before a start."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(ALONE)

    def _run(self) -> None:
        while not self._stop.is_set():
            more = False
            for step in self._steps if self._clock.monotonic() - self._poked < ALONE else ():
                more = self._try(step) or more
            if not more:
                self._stop.wait(EVERY)

    def _try(self, step: Callable[[], bool]) -> bool:
        """Run one step; outages are reported by the tick, which meets them too, other failures once each."""
        try:
            return step()
        except self._outages:
            return False
        except Exception as error:  # noqa: BLE001 - the clock must go on without its upkeep
            if type(error).__name__ not in self._failed:
                self._failed.add(type(error).__name__)
                emit("engine.failed", process="clock", reason=type(error).__name__, error=error)
            return False
