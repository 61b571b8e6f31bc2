"""Runs a callback after a worker has finished its messages and before its process ends."""

# ruff: noqa: ARG002 - the signatures of the hooks are Dramatiq's
from __future__ import annotations

from collections.abc import Callable

from dramatiq import Broker, Worker
from dramatiq.middleware import Middleware


class LastWords(Middleware):
    """Calls `say` when a worker has shut down; a process of the `dramatiq` command offers no other hook for it."""

    def __init__(self, say: Callable[[], object]) -> None:
        self.say = say

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Call the callback: the last message of this worker is done."""
        self.say()
