"""Is anybody there to do the work? Asked of the stores, so a process on another machine counts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final, Protocol

from engine.domain.processes import Seen
from engine.pipeline import clockwork, following

WITHIN: Final = timedelta(seconds=10)
"""Who was not heard of for so long counts as gone."""


class SeenStore(Protocol):
    """Who was heard of lately."""

    def seen(self) -> list[Seen]:
        """The processes of the last hour."""


class HeldLeases(Protocol):
    """Who holds what."""

    def held_for(self, name: str) -> timedelta | None:
        """How long a lease still lasts; negative when it ran out, None where nobody holds it."""


class Liveness:
    """Tells which processes are alive, and what is missing."""

    def __init__(self, processes: SeenStore, leases: HeldLeases) -> None:
        self._processes = processes
        self._leases = leases

    def alive(self) -> list[Seen]:
        """The processes that said lately that they are alive."""
        return [one for one in self._processes.seen() if one.ago <= WITHIN]

    def missing(self, lanes: Iterable[str]) -> list[str]:
        """What has not been alive for `WITHIN` of the clock, the feed and a worker of each of `lanes`, in words.

        Clock and feed are judged by their leases, which their own loops renew: a thread that hangs does not.
        """
        lost = [
            f"no {name}"
            for name, lease in (("clock", clockwork.LEASE), ("feed", following.LEASE))
            if not self._renewed(name, lease)
        ]
        served = {lane for one in self.alive() for lane in one.lanes}
        return lost + [f"no worker of the lane {lane}" for lane in dict.fromkeys(lanes) if lane not in served]

    def _renewed(self, name: str, lease: timedelta) -> bool:
        left = self._leases.held_for(name)
        return left is not None and left >= lease - WITHIN
