"""Report every few seconds that this process is alive, and which lanes it serves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from engine.domain.system_view import ProcessReport
from engine.query_metrics import new_process_id
from engine.telemetry.events import emit

EVERY: Final = 2.0
"""Seconds between two heartbeats: one small write each, and four may get lost before anybody warns."""


NOTHING: Final = ProcessReport()
"""The report of a process that says nothing of itself."""


class HeartbeatStore(Protocol):
    """Storage of heartbeats."""

    def beat(
        self,
        identity: str,
        process: str,
        lanes: Iterable[str],
        notes: Iterable[str] = (),
        report: ProcessReport = NOTHING,
    ) -> None:
        """Record that a process is alive and what it does; `notes` say what of the policies it does not follow yet."""

    def gone(self, identity: str) -> None:
        """Record that a process has ended."""


class Heartbeat:
    """The heartbeat of this process, once started; `outages` are the exceptions of a store that is unavailable."""

    def __init__(self, store: Callable[[], HeartbeatStore], outages: tuple[type[BaseException], ...]) -> None:
        self._store = store
        self._outages = outages
        self._id = new_process_id()
        self._stop = threading.Event()
        self._due = threading.Event()
        self._thread: threading.Thread | None = None
        self._failed = False

    def start(
        self,
        process: str,
        lanes: Callable[[], Iterable[str]] = tuple,
        notes: Callable[[], Iterable[str]] = tuple,
        report: Callable[[], ProcessReport] = ProcessReport,
        *,
        then: Iterable[Callable[[], object]] = (),
    ) -> None:
        """Start the heartbeat: `process` is the type of this process, `lanes` returns the lanes that it serves now.

        `notes` returns what of the policies it does not follow yet, in words, and `report` what it does. `then` are
        steps after each heartbeat.
        """
        steps = (lambda: self._store().beat(self._id, process, lanes(), notes(), report()), *then)
        self._thread = threading.Thread(target=self._run, args=(process, steps), name="heartbeat", daemon=True)
        self._thread.start()

    def soon(self) -> None:
        """Send the next heartbeat now, e.g. because this process serves other lanes."""
        self._due.set()

    def stop(self) -> None:
        """Stop, and record that this process has ended. Safe to call twice, and before a start."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stop.set()
            self._due.set()
            thread.join()

    def _run(self, process: str, steps: Iterable[Callable[[], object]]) -> None:
        while not self._stop.is_set():
            self._due.clear()
            for step in steps:
                self._try(process, step)
            if not self._stop.is_set():
                self._due.wait(EVERY)
        self._try(process, lambda: self._store().gone(self._id))

    def _try(self, process: str, step: Callable[[], object]) -> None:
        """Run `step`; ignore outages, which other parts of the process report, and emit any other failure once."""
        try:
            step()
        except self._outages:
            return
        except Exception as error:  # noqa: BLE001 - a heartbeat must never end a process
            if not self._failed:
                self._failed = True
                emit("engine.failed", process=process, reason=type(error).__name__, error=error)
