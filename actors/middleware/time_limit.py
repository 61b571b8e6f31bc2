"""The backstop behind the cooperative deadline (docs/broker.md, rows 8 and 16).

An asynchronous exception cannot break a socket call, and one that arrives a moment late ends a worker thread for good.
So it is the last resort: the drivers have timeouts, and the actor calls `time_left()` between batches. Only a thread
that has used `factor` times its limit, or whose deciding slice is no longer safe under its lease, is interrupted; its
slice is released at the same time. A thread that survives the interrupt is `overdue`, and the watchdog ends its
process.
"""

# ruff: noqa: ARG002 - the signatures of the hooks are Dramatiq's
from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from dramatiq import Broker, MessageProxy, Worker
from dramatiq.middleware import Interrupt, Middleware, TimeLimitExceeded, raise_thread_exception

LIMIT: Final = timedelta(seconds=60)
"""Default of actors that state none."""
FACTOR: Final = 2.5
"""Between 2 and 3: the cooperative deadline and one driver timeout after it come first."""
INTERVAL_SECONDS: Final = 0.25

_deadlines = threading.local()
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Running:
    """A message in a thread: when to interrupt it (monotonic seconds), and when that happened."""

    name: str
    deadline: float
    interrupted_at: float | None = None


class Holds(Protocol):
    """The deciding slices that threads hold (`engine.pipeline.slices.runner.SliceWorker`)."""

    def trusts_until(self, thread: int) -> float | None:
        """Return until when (monotonic seconds) a thread's slice is under its lease; None if it holds none."""

    def overrunning(self, thread: int) -> Callable[[], None] | None:
        """Return how to release the slice of a thread whose time is over; None if it holds none."""


class TimeLimitBackstop(Middleware):
    """Raises `TimeLimitExceeded` in a thread whose message has used `factor` times its `time_limit` (ms).

    `in_force` returns the limit (ms) that holds for a message now, whatever the message states: an edit of its lane
    reaches queued messages too. If it returns None, the message's own limit holds, and then its actor's.

    Its timer starts with the first worker or with `process_boot`, whichever comes first: a `Worker` that is started by
    hand emits no `process_boot`. Put it at the end of the middleware, nearest to the actor. `holds` names the slices of
    the threads: their leases limit the time too, and an interrupted thread's slice is released.
    """

    def __init__(
        self,
        *,
        limit: timedelta = LIMIT,
        factor: float = FACTOR,
        interval: float = INTERVAL_SECONDS,
        holds: Holds | None = None,
        in_force: Callable[[MessageProxy], int | None] = lambda _message: None,
    ) -> None:
        self.holds = holds
        self.limit = limit
        self.in_force = in_force
        self.factor = factor
        self.interval = interval
        self._lock = threading.Lock()
        self._running: dict[int, _Running] = {}
        self._timer: threading.Thread | None = None

    @property
    def actor_options(self) -> set[str]:
        """The options that an actor or a message may state."""
        return {"time_limit"}

    def after_process_boot(self, broker: Broker) -> None:
        """Start the timer when a process boots: the `dramatiq` command and the fleets emit this."""
        self._start()

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Start the timer if no `process_boot` came first."""
        self._start()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Note the start and the deadlines of this thread's message."""
        limit = self.in_force(message) or message.options.get("time_limit")
        stated = limit or broker.get_actor(message.actor_name).options.get("time_limit")
        seconds = float(stated) / 1000 if stated else self.limit.total_seconds()
        now = time.monotonic()
        _deadlines.end = now + seconds
        with self._lock:
            self._running[threading.get_ident()] = _Running(message.actor_name, now + seconds * self.factor)

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: object = None, exception: BaseException | None = None
    ) -> None:
        """Forget the thread and cancel an interrupt that is still on its way: it would end the thread."""
        _deadlines.end = None
        thread = threading.get_ident()
        try:
            self._forget(thread)
        except Interrupt:
            self._forget(thread)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Forget the thread: a skipped message may have been noted."""
        self.after_process_message(broker, message)

    def overdue(self, grace: float) -> list[str]:
        """Return the actors that still run `grace` seconds after their interrupt, e.g. inside a socket call."""
        now = time.monotonic()
        with self._lock:
            return [
                running.name
                for running in self._running.values()
                if running.interrupted_at is not None and now - running.interrupted_at > grace
            ]

    def _forget(self, thread: int) -> None:
        with self._lock:
            self._running.pop(thread, None)

    def _start(self) -> None:
        with self._lock:
            if self._timer is None or not self._timer.is_alive():
                self._timer = threading.Thread(target=self._watch, name="time-limit", daemon=True)
                self._timer.start()

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(self.interval):
            now = time.monotonic()
            releases: list[Callable[[], None]] = []
            # Interrupt under the lock: a thread that took the lock to forget itself is never interrupted afterwards.
            with self._lock:
                for thread, running in self._running.items():
                    if running.interrupted_at is None and now >= self._ends(thread, running):
                        running.interrupted_at = now
                        release = None if self.holds is None else self.holds.overrunning(thread)
                        if release is not None:
                            releases.append(release)
                        _log.warning("Actor %s is far over its time limit: interrupting it.", running.name)
                        raise_thread_exception(thread, TimeLimitExceeded)  # type: ignore[no-untyped-call]  # Dramatiq's
            for release in releases:
                self._release(release)

    def _ends(self, thread: int, running: _Running) -> float:
        """Return when (monotonic seconds) to interrupt a thread: at its deadline, or when its lease is over."""
        trusted = None if self.holds is None else self.holds.trusts_until(thread)
        return running.deadline if trusted is None else min(running.deadline, trusted)

    @staticmethod
    def _release(release: Callable[[], None]) -> None:
        try:
            release()
        except Exception:  # noqa: BLE001 - the timer must go on for the other threads; the lease runs out by itself
            _log.warning("Could not release a slice that exceeded its time limit.", exc_info=True)


def time_left() -> float | None:
    """Return the seconds until the cooperative deadline of this thread's message (negative: over); None outside one."""
    end: float | None = getattr(_deadlines, "end", None)
    return None if end is None else end - time.monotonic()
