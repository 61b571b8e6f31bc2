"""What is still on its way when a slice ends: a provider that keeps an answer back holds up no slice and no worker.

A thread of the process settles it once the answer comes, under the sender's own lease.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Final, Protocol

from engine.pipeline.sender import Sender
from engine.telemetry.events import emit

LOOK: Final = 0.1
"""Seconds between two looks at what has come."""


class Unfinished(Protocol):
    """Windows of which somebody else takes care from here on."""

    @property
    def finished(self) -> bool:
        """Whether everything has come and is written."""

    def catch_up(self) -> None:
        """Write what has come."""


class LeftBehind:
    """The windows that outlive their slices. `outages` are what the store raises that is away: it is asked again."""

    def __init__(self, sender: Sender, outages: tuple[type[BaseException], ...]) -> None:
        self._sender = sender
        self._outages = outages
        self._lock = threading.Lock()
        self._left: list[Unfinished] = []
        self._thread: threading.Thread | None = None

    def adopt(self, one: Unfinished) -> None:
        """Take care of windows; what has come by now is written before this returns, if the store is there."""
        self._catch_up(one)
        if one.finished:
            return
        with self._lock:
            self._left.append(one)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="left-behind", daemon=True)
                self._thread.start()

    def wait(self, within: float) -> bool:
        """Wait until nothing is left, for at most `within` seconds; gives whether nothing is."""
        until = time.monotonic() + within
        while (thread := self._thread) is not None and (rest := until - time.monotonic()) > 0:
            thread.join(rest)
        return self._thread is None

    def close(self, within: float) -> None:
        """Wait until nothing is left, and give the sender's lease up: nobody has to wait until it runs out.

        Where something is left, or the store is away, the lease stays, and runs out by itself.
        """
        if self.wait(within):
            with suppress(*self._outages):
                self._sender.give_up()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            with self._lock:
                self._left = [one for one in self._left if not one.finished]
                left = [*self._left]
                if not left:
                    self._thread = None
                    return
            try:
                self._sender.keep()
            except self._outages:
                pause.wait(LOOK)
            for one in left:
                self._catch_up(one)
            pause.wait(LOOK)

    def _catch_up(self, one: Unfinished) -> None:
        try:
            one.catch_up()
        except self._outages:
            return
        except Exception as error:  # noqa: BLE001 - the others' answers must be written
            emit("engine.failed", process="left-behind", reason=type(error).__name__, error=error)
