"""Run the feed's loop: hold the lease, handle changes, repeat.

Two feeds may run: one holds the lease, the other waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from engine.clock import Clock
from engine.pipeline.feed.change_feed import ChangeFeed
from engine.pipeline.loop_failures import LoopFailures
from engine.pipeline.ports.work import NamedLeases
from engine.telemetry.events import emit

LEASE: Final = timedelta(seconds=6)
"""Another feed takes over if the holder does not renew for this long; two feeds at once are harmless."""

RENEWED: Final = 2.0
"""Seconds after which the feed renews its lease."""

WAIT: Final = timedelta(seconds=1)
"""Longest wait for a change or a call to the feed (`FeedStore.call`); either ends the wait at once."""

PAUSE: Final = 1.0
"""Seconds between two tries while another feed holds the lease, or after a failure."""


class FeedLoop:
    """Run the feed until it has to stop; `owner` names this feed across its restarts."""

    def __init__(
        self,
        change_feed: ChangeFeed,
        leases: NamedLeases,
        clock: Clock,
        *,
        owner: str,
        outages: tuple[type[BaseException], ...],
        failures: LoopFailures,
    ) -> None:
        self._failures = failures
        self._change_feed = change_feed
        self._leases = leases
        self._clock = clock
        self._owner = owner
        self._outages = outages

    def run(self, stopping: Callable[[], bool], pause: Callable[[float], object]) -> None:
        """Follow changes until `stopping()`; `pause` sleeps for seconds, or less if the process has to stop."""
        held = float("-inf")
        while not stopping():
            try:
                if self._clock.monotonic() - held > RENEWED:
                    if self._leases.hold("feed", self._owner, LEASE) is None:
                        pause(PAUSE)
                        continue
                    held = self._clock.monotonic()
                self._change_feed.step(WAIT)
                self._failures.worked("feed")
            except self._outages as error:
                self._failed("store_away", error, pause)
            except Exception as error:  # noqa: BLE001 - a bad document must not stop the feed for all others
                self._failed(type(error).__name__, error, pause)
        self._change_feed.close()
        self._leases.give_up("feed", self._owner)

    def _failed(self, reason: str, error: BaseException, pause: Callable[[float], object]) -> None:
        emit("engine.failed", process="feed", reason=reason, error=error)
        self._failures.failed("feed", error)
        self._change_feed.close()
        pause(PAUSE)
