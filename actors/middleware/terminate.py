"""Ignores a repeated SIGTERM: a signal to the process group reaches a worker twice (docs/broker.md, row 4).

honcho, Heroku and systemd signal every process of a group, and the `dramatiq` command passes its own signal on to its
children. Dramatiq takes the second SIGTERM for an impatient operator and exits within milliseconds, its work
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
"""How long a repeated signal counts as the same one.

Longer than any batch (1.5 s) and than a loaded machine takes to pass a signal on; as long as honcho waits before it
kills.
"""


class Terminate(Middleware):
    """Handles SIGTERM and SIGHUP: the first sets the stop flag and ends idle threads; repetitions are ignored.

    A signal more than `window` seconds after the first goes through to Dramatiq's handler, which ends the process at
    once. An operator can thus still force an exit.
    """

    def __init__(self, *, window: float = WINDOW_SECONDS) -> None:
        self.window = window
        self._first: float | None = None
        self._workers: list[Worker] = []

    def after_process_boot(self, broker: Broker) -> None:
        """Wrap the handlers that the command line has just installed, in the main thread only: signals belong to it."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGHUP):
            previous = signal.getsignal(number)
            if callable(previous):  # otherwise nothing here stops gracefully, and the default must stay
                signal.signal(number, self._debounced(previous))

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Remember a worker, so that a signal can end its idle threads."""
        self._workers.append(worker)

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """End idle threads if a signal came while the threads started: it missed them."""
        if stop_requested():
            self._end_idle_threads()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Forget the worker: it has no threads any more."""
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
        """Let worker threads end after their current message; Dramatiq would do it up to a second later.

        The consumers live on: they send heartbeats until the last message is acknowledged.
        """
        for worker in self._workers:
            for thread in worker.workers:
                thread.running = False
