"""What this process has done, counted from its own events, and how often a second: the report of its heartbeat.

Events are counted a batch, a slice or a window at a time, never a mail, so that counting costs nothing that matters.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Final

from engine.domain.system_view import RATED_OVER, ProcessReport
from engine.telemetry.events import Occurrence

OUTCOMES: Final = ("sent", "retried", "failed", "unknown", "skipped")
"""Ends of a delivery, as the event `batch.delivered` counts them."""
CHANNEL: Final = "email"
"""The channel of every delivery that such an event counts."""
_NO_LANE: Final = ""


class ProcessCounts:
    """Counts of this process since it began. Threads may share it; `subscribe` it to the events of the process.

    `calls` returns the calls of named queries so far by store, and how many of them failed; `memory` the resident
    memory of the process in bytes.
    """

    def __init__(self, calls: Callable[[], Mapping[str, tuple[int, int]]], memory: Callable[[], int]) -> None:
        self._calls = calls
        self._memory = memory
        self._totals: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._here = threading.local()
        self._busy = 0
        self._past: deque[tuple[float, dict[str, int]]] = deque(maxlen=64)

    @contextmanager
    def working(self, lane: str) -> Iterator[None]:
        """Count this thread as busy in the block, with a message of `lane`; what it does there counts for the lane."""
        self.begin(lane)
        try:
            yield
        finally:
            self.end()

    def begin(self, lane: str) -> None:
        """Count this thread as busy with a message of `lane` until `end`."""
        with self._lock:
            self._busy += getattr(self._here, "lane", None) is None
        self._here.lane = lane

    def end(self) -> None:
        """Count this thread as idle again. Safe to repeat."""
        with self._lock:
            self._busy -= getattr(self._here, "lane", None) is not None
        self._here.lane = None

    def __call__(self, occurrence: Occurrence) -> None:
        """Count an event, if it says that work was done."""
        name, fields = occurrence.name, occurrence.fields
        if name in ("slice.closed", "slice.released"):
            self._count({f"slices.{self._lane}": 1})
        elif name == "batch.decided":
            self._count({f"batches.{self._lane}": 1, f"users.{self._lane}": _number(fields, "users")})
        elif name == "batch.delivered":
            ends = {f"deliveries.{CHANNEL}.{outcome}": _number(fields, outcome) for outcome in OUTCOMES}
            self._count({f"batches.{self._lane}": 1, **ends})
        elif name == "feed.handled":
            self._count({"changes": _number(fields, "users")})

    def report(self, threads: int = 0) -> ProcessReport:
        """Return the report of this moment; `threads` is how many may work at once.

        Rates are those since the first report of the last `RATED_OVER` seconds.
        """
        now = monotonic()
        with self._lock:
            totals = dict(self._totals)
            busy = self._busy
        for store, (calls, failed) in self._calls().items():
            totals |= {f"calls.{store}": calls, f"failed.{store}": failed}
        while len(self._past) > 1 and now - self._past[0][0] > RATED_OVER:
            self._past.popleft()
        since, before = self._past[0] if self._past else (now, {})
        lasted = now - since
        rates = {
            name: round((count - before.get(name, 0)) / lasted, 3)
            for name, count in totals.items()
            if lasted > 0 and count > before.get(name, 0)
        }
        self._past.append((now, totals))
        counted = {name: count for name, count in totals.items() if count}
        return ProcessReport(threads, busy, self._memory(), rates, counted)

    @property
    def _lane(self) -> str:
        return getattr(self._here, "lane", None) or _NO_LANE

    def _count(self, more: Mapping[str, int]) -> None:
        with self._lock:
            self._totals.update(more)


def _number(fields: Mapping[str, object], name: str) -> int:
    found = fields.get(name)
    return found if isinstance(found, int) else 0
