"""Counts the threads of this process that work on a message, and for which lane (`engine.telemetry.process_counts`)."""

# ruff: noqa: ARG002 - the signatures of the hooks are Dramatiq's
from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from weakref import WeakSet

from dramatiq import Broker, MessageProxy, Worker
from dramatiq.common import q_name
from dramatiq.middleware import Middleware


class Counts(Protocol):
    """Counts busy threads."""

    def begin(self, lane: str) -> None:
        """Count the calling thread as busy with a message of `lane`."""

    def end(self) -> None:
        """Count the calling thread as idle again."""


class BusyThreads(Middleware):
    """Tells `counts` which thread works; `threads` is how many may, in all workers of this process."""

    def __init__(self, counts: Callable[[], Counts]) -> None:
        self._counts = counts
        self._workers: WeakSet[Worker] = WeakSet()

    def threads(self) -> int:
        """Return how many threads of this process may work at once."""
        return sum(worker.worker_threads for worker in list(self._workers))

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Note a worker of this process."""
        self._workers.add(worker)

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Forget a worker that has stopped."""
        self._workers.discard(worker)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """The thread is busy."""
        self._counts().begin(q_name(message.queue_name))

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: object = None, exception: BaseException | None = None
    ) -> None:
        """The thread is idle."""
        self._counts().end()

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """The thread is idle: a skipped message never reaches `after_process_message`."""
        self._counts().end()
