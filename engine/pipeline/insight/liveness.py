"""Check that processes are alive to do the work. It asks the stores, so a process on another machine counts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final, Protocol

from engine.domain.processes import Seen
from engine.pipeline.feed import loop as feed_loop
from engine.pipeline.scheduler import loop as scheduler_loop

WITHIN: Final = timedelta(seconds=10)
"""A process that has not reported for this long counts as gone."""


class SeenStore(Protocol):
    """The heartbeats of processes."""

    def seen(self) -> list[Seen]:
        """Return the processes of the last hour."""


class HeldLeases(Protocol):
    """The named leases that processes hold."""

    def held_for(self, name: str) -> timedelta | None:
        """Return how long a lease still lasts; negative after it ran out, None if nobody holds it."""


class Liveness:
    """Reports which processes are alive, and which are missing."""

    def __init__(self, processes: SeenStore, leases: HeldLeases) -> None:
        self._processes = processes
        self._leases = leases

    def alive(self) -> list[Seen]:
        """Return the processes that have recently reported that they are alive."""
        return [process for process in self._processes.seen() if process.ago <= WITHIN]

    def missing(self, lanes: Iterable[str]) -> list[str]:
        """Return, in words, what has not been alive for `WITHIN`: the clock, the feed, a worker of each of `lanes`.

        The leases of clock and feed decide, because their own loops renew them: a thread that hangs does not.
        """
        lost = [
            f"no {name}"
            for name, lease in (("clock", scheduler_loop.LEASE), ("feed", feed_loop.LEASE))
            if not self._renewed(name, lease)
        ]
        served = {lane for process in self.alive() for lane in process.lanes}
        return lost + [f"no worker of the lane {lane}" for lane in dict.fromkeys(lanes) if lane not in served]

    def _renewed(self, name: str, lease: timedelta) -> bool:
        left = self._leases.held_for(name)
        return left is not None and left >= lease - WITHIN
