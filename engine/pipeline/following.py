"""The feed's loop: hold the lease, handle what changed, again. Two may run: one holds the lease, the other waits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from engine.clock import Clock
from engine.pipeline.feeding import Feeding
from engine.pipeline.loop_failures import LoopFailures
from engine.pipeline.ports import NamedLeases
from engine.telemetry.events import emit

LEASE: Final = timedelta(seconds=6)
"""After this long without its holder another feed takes over; two at once are harmless."""

RENEWED: Final = 2.0
"""Seconds after which the lease is renewed."""

WAIT: Final = timedelta(seconds=1)
"""The longest wait for a change, or for somebody who calls the feed; both end it at once."""

PAUSE: Final = 1.0
"""Seconds between two tries while another holds the lease, or a store is away."""


class Following:
    """Runs the feed until told to stop; `owner` names this feed across its restarts."""

    def __init__(
        self,
        feeding: Feeding,
        leases: NamedLeases,
        clock: Clock,
        *,
        owner: str,
        outages: tuple[type[BaseException], ...],
        failures: LoopFailures,
    ) -> None:
        self._failures = failures
        self._feeding = feeding
        self._leases = leases
        self._clock = clock
        self._owner = owner
        self._outages = outages

    def run(self, stopping: Callable[[], bool], pause: Callable[[float], object]) -> None:
        """Follow until `stopping`; `pause` sleeps for seconds, less when the process is told to stop."""
        held = float("-inf")
        while not stopping():
            try:
                if self._clock.monotonic() - held > RENEWED:
                    if self._leases.hold("feed", self._owner, LEASE) is None:
                        pause(PAUSE)
                        continue
                    held = self._clock.monotonic()
                self._feeding.step(WAIT)
                self._failures.worked("feed")
            except self._outages as error:
                self._failed("store_away", error, pause)
            except Exception as error:  # noqa: BLE001 - a bad document must not stop what all others depend on
                self._failed(type(error).__name__, error, pause)
        self._feeding.close()
        self._leases.give_up("feed", self._owner)

    def _failed(self, reason: str, error: BaseException, pause: Callable[[float], object]) -> None:
        emit("engine.failed", process="feed", reason=reason, error=error)
        self._failures.failed("feed", error)
        self._feeding.close()
        pause(PAUSE)
