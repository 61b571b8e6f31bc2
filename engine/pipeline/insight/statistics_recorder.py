"""Store the measurements of a process at intervals and at its end, without delaying its work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Protocol

from engine.clock import Clock, Instant
from engine.decisions.batch_size import Tuner
from engine.query_metrics import MEASUREMENTS, Measurements, Stretch, new_process_id
from engine.telemetry.events import emit

EVERY: Final = 10.0
"""Seconds between two writes: one small document per process, and only if something was measured."""

STRETCH: Final = 3_600_000
"""Milliseconds after which counting starts anew in a new document, so that the latest hours can be shown separately."""


IDLE: Final = 60_000
"""Milliseconds without a measurement after which counting starts anew: a stretch that was quiet is never written again,
so that the clock can add it to the counters of the metrics (`engine.pipeline.insight.counter_folding`)."""


class StretchStore(Protocol):
    """Storage of stretches."""

    def write(self, stretch: Stretch) -> None:
        """Replace what was stored of the same stretch."""


class StatisticsRecorder:
    """Writes the measurements of this process, once started.

    The first write calls `store`. `tuner` is the process's batch tuner. `outages` are the exceptions of a store that is
    unavailable.
    """

    def __init__(
        self,
        store: Callable[[], StretchStore],
        tuner: Tuner,
        clock: Clock,
        outages: tuple[type[BaseException], ...],
        measurements: Measurements = MEASUREMENTS,
    ) -> None:
        self._store = store
        self._measurements = measurements
        self._tuner = tuner
        self._clock = clock
        self._outages = outages
        self._id = new_process_id()
        self._process = ""
        self._began: Instant = clock.system_now()
        self._number = 0
        self._written = 0
        self._written_at: Instant | None = None
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, process: str) -> None:
        """Start to write every `EVERY` seconds; `process` is the type of this process (`fast`)."""
        self._process = process
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write the remaining measurements and stop. Safe to call twice, and before a start.

        It does not wait long for a store that is unavailable.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stop.set()
            thread.join()
            self._tell()

    def write(self) -> bool:
        """Write the measurements so far; after an hour, or a quiet minute, start anew.

        Return False if there are none. Raises outages.
        """
        with self._writing:
            now = self._clock.system_now()
            if self._measurements.calls == self._written:
                quiet = self._written_at is not None and now - self._written_at >= IDLE
                if quiet and self._measurements.forget(self._written):
                    self._number, self._began, self._written_at = self._number + 1, now, None
                return False
            over = now - self._began >= STRETCH
            figures = self._measurements.figures(anew=over)
            tuned = {query: self._tuner.evidence(query) for query in self._tuner.queries()}
            stretch = Stretch(f"{self._id}/{self._number:04d}", self._process, self._began, now, figures, tuned)
            if over:
                self._number, self._began = self._number + 1, now
            self._store().write(stretch)
            self._written_at = None if over else now
            self._written = self._measurements.calls  # the write itself is measured, but must not cause another write
            return True

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            self._tell()

    def _tell(self) -> None:
        try:
            self.write()
        except self._outages:
            return  # the next write includes these counts
        except Exception as error:  # noqa: BLE001 - statistics must never end a process
            emit("engine.failed", process=self._process, reason=type(error).__name__, error=error)
