"""The sender: a process that marks deliveries, and the lease that says it is alive.

A mark names its sender. While the sender's lease lasts, nobody else touches the deliveries that it marked, even if
their slice ends. So a slice can end, be released or be rerouted without interrupting a window.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Final
from uuid import uuid4

from engine.clock import Clock
from engine.pipeline.ports.work import NamedLeases
from engine.pipeline.slices.runner import MARGIN, LeaseLost

SENDERS: Final = "sender/"
"""Prefix of the names of senders' leases."""


GRACE: Final = timedelta(seconds=5)
"""How long a sender counts as living after its lease ran out: MongoDB may have been away."""


def sender_of(token: str) -> str:
    """Return the name of the sender in a mark."""
    return token.partition("|")[0]


class Sender:
    """This process as a sender. It takes its lease before the first mark and renews it when half of it is over."""

    def __init__(self, leases: NamedLeases, clock: Clock, lease: timedelta) -> None:
        self.name = f"{SENDERS}{uuid4().hex[:16]}"
        self._leases = leases
        self._clock = clock
        self._lease = lease
        self._lock = threading.Lock()
        self._until = float("-inf")

    @property
    def alive(self) -> bool:
        """Whether the lease is valid, by this process's own clock and with a margin."""
        return self._clock.monotonic() < self._until

    def token(self) -> str:
        """Return a mark for one window, under a valid lease. Raises `LeaseLost` if the lease cannot be held."""
        self.keep()
        if not self.alive:
            raise LeaseLost
        return f"{self.name}|{uuid4().hex[:12]}"

    def keep(self) -> None:
        """Renew the lease if half of it is over."""
        with self._lock:
            began, length = self._clock.monotonic(), self._lease.total_seconds()
            if self._until - began > length * (0.5 - MARGIN):
                return
            if self._leases.hold(self.name, self.name, self._lease) is not None:
                self._until = began + length * (1 - MARGIN)

    def give_up(self) -> None:
        """Give up the lease once every marked delivery is settled, so nobody has to wait for this process."""
        with self._lock:
            if self.alive:
                self._until = float("-inf")
                self._leases.give_up(self.name, self.name)
