"""Renews the lease of a slice while its worker waits for a provider: a mail server may take ten minutes to say yes.

Without it another worker would take the slice over, and settle as unknown, or send again, what is still under way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from engine.clock import Clock
from engine.pipeline.ports import SliceStore
from engine.pipeline.working import MARGIN, Hold
from engine.telemetry.events import emit

RENEWALS = 4
"""Renewals in one lease: three may fail before it runs out."""


class LeaseKeeper:
    """One thread for all slices that a process holds; it ends when none has been waiting for a while.

    `outages` are what the store raises that is away: a lease that cannot be renewed runs out, as it does without this.
    """

    def __init__(
        self, slices: SliceStore, clock: Clock, lease: timedelta, outages: tuple[type[BaseException], ...]
    ) -> None:
        self._slices = slices
        self._clock = clock
        self._lease = lease
        self._outages = outages
        self._holds: dict[str, Hold] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def keeping(self, hold: Hold) -> Iterator[None]:
        """Keep the lease of `hold` while the block runs; its holder must not change it meanwhile."""
        with self._lock:
            self._holds[hold.piece.id] = hold
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._holds[hold.piece.id]

    def renew(self) -> None:
        """Renew every lease that is kept, once. One that was lost already stays lost: its holder finds out."""
        with self._lock:
            for hold in self._holds.values():
                renewed = self._clock.monotonic()
                cursor = hold.piece.cursor or hold.piece.first
                if renewed < hold.until and self._slices.checkpoint(
                    hold.piece.id, hold.token, cursor, hold.counts, self._lease
                ):
                    hold.until = renewed + self._lease.total_seconds() * (1 - MARGIN)

    def _run(self) -> None:
        pause = threading.Event()
        idle = 0
        while True:
            pause.wait(self._lease.total_seconds() / RENEWALS)
            with self._lock:
                idle = 0 if self._holds else idle + 1
                if idle == RENEWALS:
                    self._thread = None
                    return
            try:
                self.renew()
            except self._outages:
                continue
            except Exception as error:  # noqa: BLE001 - the leases of the others must be kept on
                emit("engine.failed", process="lease-keeper", reason=type(error).__name__, error=error)
