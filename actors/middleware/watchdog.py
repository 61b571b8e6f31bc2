"""Ends a process that has lost a thread, so that its supervisor starts a healthy one (docs/broker.md, rows 2 and 8).

Dramatiq does not notice a dead worker or consumer thread: the process lives on and does less, or nothing.
"""

# ruff: noqa: ARG002 - the signatures of the hooks are Dramatiq's
from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Final

from dramatiq import Broker, Worker
from dramatiq.middleware import Middleware

from actors.middleware.shutdown import request_stop, stop_requested
from actors.middleware.time_limit import TimeLimitBackstop
from actors.worker_threads import retired

EXIT_UNHEALTHY: Final = 70
"""`EX_SOFTWARE` of sysexits.h: any code but 0, so that no supervisor takes the exit for an intended stop."""
INTERVAL_SECONDS: Final = 1.0
GRACE_SECONDS: Final = 30.0
"""How long an interrupted thread may take to end; longer than any driver's timeout."""
DRAIN_MILLISECONDS: Final = 5_000
"""How long the healthy threads may finish their messages: more than three batches."""

Verdict = Callable[[str, list[Worker]], object]

_log = logging.getLogger(__name__)


class Watchdog(Middleware):
    """Checks every `interval` seconds that each started thread still lives and that none is stuck.

    Calls `on_failure(reason, workers)` once; by default that drains the healthy threads and ends the process.
    """

    def __init__(
        self,
        *,
        on_failure: Verdict | None = None,
        interval: float = INTERVAL_SECONDS,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self.on_failure = on_failure or leave
        self.interval = interval
        self.grace = grace
        self._lock = threading.Lock()
        self._workers: list[Worker] = []
        self._thread: threading.Thread | None = None

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Watch this worker from now on."""
        with self._lock:
            self._workers.append(worker)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, args=(broker,), name="watchdog", daemon=True)
                self._thread.start()

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Stop watching a worker that is about to stop: it may lose its threads."""
        with self._lock:
            if worker in self._workers:
                self._workers.remove(worker)

    def diagnosis(self, broker: Broker) -> str | None:
        """Return the fault of the watched workers, or None."""
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            dead = sum(not thread.is_alive() and not retired(thread) for thread in list(worker.workers))
            if dead:
                return f"{dead} of {len(worker.workers)} worker threads are dead"
            lost = sorted(name for name, thread in list(worker.consumers.items()) if not thread.is_alive())
            if lost:
                return f"the consumers of {', '.join(lost)} are dead"
        for middleware in broker.middleware:
            if isinstance(middleware, TimeLimitBackstop) and (stuck := middleware.overdue(self.grace)):
                return f"{', '.join(stuck)} did not end when interrupted"
        return None

    def _watch(self, broker: Broker) -> None:
        pause = threading.Event()
        while not pause.wait(self.interval):
            with self._lock:
                if not self._workers:
                    self._thread = None
                    return
            # A stopping process loses its threads on purpose, and Dramatiq waits for the busy ones.
            if stop_requested():
                continue
            # Diagnose twice: a stop may have ended a worker's threads after the list of workers was copied.
            if self.diagnosis(broker) and (reason := self.diagnosis(broker)) and not stop_requested():
                with self._lock:
                    workers, self._workers, self._thread = self._workers, [], None
                if workers:
                    self.on_failure(reason, workers)
                return


def leave(reason: str, workers: list[Worker]) -> None:
    """Drain the healthy threads, return the rest to the queue and end the process with `EXIT_UNHEALTHY`."""
    _log.critical("Leaving, because %s.", reason)
    request_stop()
    try:
        for worker in workers:
            worker.stop(timeout=DRAIN_MILLISECONDS)
    except Exception:  # noqa: BLE001 - whatever fails, this process has to end
        _log.exception("Could not give everything back; it returns after the heartbeat timeout.")
    logging.shutdown()
    os._exit(EXIT_UNHEALTHY)
