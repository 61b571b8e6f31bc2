"""Settle the windows that are still open when their slice ends, so that a slow provider blocks no slice and no worker.

A thread of the process settles each window once its answers arrive, under the sender's own lease.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Final, Protocol

from engine.pipeline.delivery.sender_lease import Sender
from engine.telemetry.events import emit

LOOK: Final = 0.1
"""Seconds between two checks for new answers."""


class Unfinished(Protocol):
    """Windows whose slice has ended before all their answers were settled."""

    @property
    def finished(self) -> bool:
        """Whether every window is answered and settled."""

    def catch_up(self) -> None:
        """Settle the answers that have arrived."""


class UnsettledWindows:
    """Hold the windows that outlive their slices, and settle them.

    `outages` are the exceptions of a store that is away; after one of them the thread tries again.
    """

    def __init__(self, sender: Sender, outages: tuple[type[BaseException], ...]) -> None:
        self._sender = sender
        self._outages = outages
        self._lock = threading.Lock()
        self._left: list[Unfinished] = []
        self._thread: threading.Thread | None = None

    def adopt(self, unfinished: Unfinished) -> None:
        """Take over windows. Settle the answers that have arrived before returning, if the store is available."""
        self._catch_up(unfinished)
        if unfinished.finished:
            return
        with self._lock:
            self._left.append(unfinished)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="left-behind", daemon=True)
                self._thread.start()

    def wait(self, within: float) -> bool:
        """Wait up to `within` seconds until no window is open; return whether none is."""
        until = time.monotonic() + within
        while (thread := self._thread) is not None and (rest := until - time.monotonic()) > 0:
            thread.join(rest)
        return self._thread is None

    def close(self, within: float) -> None:
        """Wait up to `within` seconds until no window is open, then give up the sender's lease, so nobody waits for it.

        If a window stays open or the store is away, the lease stays and runs out by itself.
        """
        if self.wait(within):
            with suppress(*self._outages):
                self._sender.give_up()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            with self._lock:
                self._left = [unfinished for unfinished in self._left if not unfinished.finished]
                left = [*self._left]
                if not left:
                    self._thread = None
                    return
            try:
                self._sender.keep()
            except self._outages:
                pause.wait(LOOK)
            for unfinished in left:
                self._catch_up(unfinished)
            pause.wait(LOOK)

    def _catch_up(self, unfinished: Unfinished) -> None:
        try:
            unfinished.catch_up()
        except self._outages:
            return
        except Exception as error:  # noqa: BLE001 - the answers of other windows must still be settled
            emit("engine.failed", process="left-behind", reason=type(error).__name__, error=error)
