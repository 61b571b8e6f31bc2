"""Read something costly once for all viewers: a thread repeats the reading only while somebody watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from engine.clock import Instant, SystemClock
from engine.telemetry.events import emit

T = TypeVar("T")

IDLE: Final = 10.0
"""Seconds after the last question in which the thread still reads."""
PATIENCE: Final = 4.0
"""Seconds that a question waits for the first reading, or for one that is not too old."""
STALE: Final = 3.0
"""Intervals after which a reading is too old to be shown without waiting for the next."""


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """What was read at `at` (system time); `error` says why the latest try failed, empty if it did not.

    `value` is None until a reading has succeeded. `number` rises with each success.
    """

    value: T | None = None
    at: Instant = 0
    error: str = ""
    number: int = 0


class SharedReading(Generic[T]):
    """Calls `read` every `every` seconds while somebody asks, in a thread of its own; all askers share the answer."""

    def __init__(self, name: str, read: Callable[[], T], every: float) -> None:
        self._name, self._read, self._every = name, read, every
        self._latest: Reading[T] = Reading()
        self._ended_at = self._asked_at = float("-inf")
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._clock = SystemClock()

    def latest(self, patience: float = PATIENCE) -> Reading[T]:
        """Return the latest reading; wait up to `patience` seconds if there is none yet, or only a stale one."""
        with self._changed:
            self._asked_at = time.monotonic()
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(target=self._run, name=f"web-{self._name}", daemon=True)
                self._thread.start()
            self._changed.wait_for(self._fresh, patience)
            return self._latest

    def stop(self) -> None:
        """End the thread; later questions get the last reading. Safe to repeat."""
        self._stopped.set()
        with self._changed:
            thread = self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(PATIENCE)

    def _fresh(self) -> bool:
        return self._stopped.is_set() or time.monotonic() - self._ended_at < STALE * self._every

    def _run(self) -> None:
        while not self._stopped.is_set():
            before = self._latest
            try:
                value = self._read()
                reading = Reading(value, self._clock.system_now(), "", before.number + 1)
            except Exception as error:  # noqa: BLE001 - the pages show it and the next try follows
                reading = Reading(before.value, before.at, f"{type(error).__name__}: {error}", before.number)
                if before.error != reading.error:
                    emit("engine.failed", process="web", reason=type(error).__name__, error=error)
            with self._changed:
                self._latest, self._ended_at = reading, time.monotonic()
                self._changed.notify_all()
            self._stopped.wait(self._every)
            with self._changed:
                if time.monotonic() - self._asked_at > IDLE:
                    self._thread = None
                    return
