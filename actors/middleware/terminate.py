"""A SIGTERM to the whole process group reaches a worker twice: the second one must not kill it (docs/broker.md, row 4).

honcho, Heroku and systemd signal every process of a group, and the `dramatiq` command passes its own signal on to its
children. Dramatiq takes the second SIGTERM for an impatient operator and leaves within milliseconds, its work
unacknowledged.
"""

# ruff: noqa: ARG002 - the signatures of the hooks are Dramatiq's
from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

from dramatiq import Broker, Worker
from dramatiq.middleware import Middleware

from actors.middleware.shutdown import request_stop, stop_requested

Handler = Callable[[int, FrameType | None], object]

WINDOW_SECONDS: Final = 5.0
"""How long a repeated signal counts as the same one: longer than any batch (1.5 s) and than a loaded machine takes to
pass a signal on, and as long as honcho waits before it kills."""


class Terminate(Middleware):
    """Hears SIGTERM and SIGHUP: the first raises the stop flag and ends idle threads, its repetitions are ignored.

    A signal more than `window` seconds after the first goes through to Dramatiq's handler, which ends the process at
    once: so an operator who means it is still obeyed.
    """

    def __init__(self, *, window: float = WINDOW_SECONDS) -> None:
        self.window = window
        self._first: float | None = None
        self._workers: list[Worker] = []

    def after_process_boot(self, broker: Broker) -> None:
        """Wrap the handlers that the command line has just installed. Signals belong to the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGHUP):
            previous = signal.getsignal(number)
            if callable(previous):  # else nobody stops gracefully here, and the default must stay
                signal.signal(number, self._debounced(previous))

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Remember whose threads to end, and take no work at all if the signal came first."""
        self._workers.append(worker)

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """A signal that came while the threads started has missed them."""
        if stop_requested():
            self._end_idle_threads()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """The worker has no threads any more."""
        if worker in self._workers:
            self._workers.remove(worker)

    def _debounced(self, previous: Handler) -> Handler:
        def handle(number: int, frame: FrameType | None) -> None:
            now = time.monotonic()
            if self._first is not None and now - self._first < self.window:
                return
            if self._first is None:
                self._first = now
            request_stop()
            self._end_idle_threads()
            previous(number, frame)

        return handle

    def _end_idle_threads(self) -> None:
        """Let worker threads end after the message they are at; Dramatiq would do it up to a second later.

        The consumers live on: they send the heartbeats until the last message is acknowledged.
        """
        for worker in self._workers:
            for thread in worker.workers:
                thread.running = False
