"""Record durably which loops of a process fail; a record goes away as soon as its loop works again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Final

from engine.clock import Clock
from engine.failure_text import reason_of
from engine.pipeline.ports.work import FailureStore

WRITTEN: Final = 2.0
"""Seconds between two notes of one loop: a loop that fails many times a second writes one document."""


@dataclass(slots=True)
class _Noted:
    reason: str = ""
    at: float = float("-inf")
    unwritten: int = 0


class LoopFailures:
    """The loop failures of one process; `outages`, the exceptions of a store that does not answer, are not noted."""

    def __init__(
        self, process: str, store: Callable[[], FailureStore], clock: Clock, outages: tuple[type[BaseException], ...]
    ) -> None:
        self._process = process
        self._store = store
        self._clock = clock
        self._outages = outages
        self._noted: dict[str, _Noted] = {}
        self._clean: set[str] = set()
        self._lock = Lock()

    @contextmanager
    def attempt(self, loop: str) -> Iterator[None]:
        """Note whether the block fails, and raise its exception again."""
        try:
            yield
        except Exception as error:
            self.failed(loop, error)
            raise
        self.worked(loop)

    def failed(self, loop: str, error: BaseException | str) -> None:
        """Note that a loop failed; if the store does not answer, a later failure is noted instead."""
        reason = error if isinstance(error, str) else reason_of(error)
        with self._lock:
            noted = self._noted.setdefault(loop, _Noted())
            self._clean.discard(loop)
            noted.unwritten += 1
            now = self._clock.monotonic()
            if noted.reason == reason and now - noted.at < WRITTEN:
                return
            times, noted.reason, noted.at, noted.unwritten = noted.unwritten, reason, now, 0
        try:
            self._store().note(self._process, loop, reason, times)
        except self._outages:
            with self._lock:  # the next failure is written at once, with these
                noted.at, noted.unwritten = float("-inf"), noted.unwritten + times

    def worked(self, loop: str) -> None:
        """Note that a loop works; costs nothing if it worked before."""
        if loop in self._clean:
            return
        try:
            self._store().clear(self._process, loop)
        except self._outages:
            return
        with self._lock:
            self._noted.pop(loop, None)
            self._clean.add(loop)
