"""The campaigns as one process knows them: read once, then only what somebody changed since.

With thousands of campaigns, reading them all at each tick would cost more than the ticks do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final

from engine.clock import Clock, Instant
from engine.domain.campaign import CampaignRecord
from engine.pipeline.ports import CampaignStore

MARGIN: Final = timedelta(seconds=5)
"""Writes become visible in another order than that of their moments; so much later one may still come."""

QUIET: Final = 2 * MARGIN.total_seconds()
"""Seconds after the latest write in which no later one was seen: then none of before it is to come."""

ALL_AGAIN: Final = 60.0
"""Seconds after which everything is read again: what two clocks write of passes touches no campaign."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Roster:
    """Records of campaigns by uid."""

    def __init__(self, campaigns: CampaignStore, clock: Clock) -> None:
        self._campaigns = campaigns
        self._clock = clock
        self._records: dict[str, CampaignRecord] = {}
        self._since = _EPOCH
        self._read = float("-inf")
        self._moved = float("-inf")
        self._lock = Lock()

    def refresh(self) -> bool:
        """Read what changed; gives whether anything did."""
        with self._lock:
            now = self._clock.monotonic()
            found, latest = self._campaigns.touched_since(self._from(now))
            if latest > self._since:
                self._since, self._moved = latest, now
            changed = [record for record in found if self._records.get(record.uid) != record]
            self._records.update((record.uid, record) for record in changed)
            return bool(changed)

    def _from(self, now: float) -> datetime:
        """The moment from which on to read what was touched; `now` in seconds of the monotonic clock."""
        if now - self._read > ALL_AGAIN:
            self._read = now
            return _EPOCH
        return self._since if now - self._moved > QUIET else max(_EPOCH, self._since - MARGIN)

    def in_states(self, states: Sequence[str]) -> dict[str, CampaignRecord]:
        """The campaigns in one of `states`, by uid, as they were at the last `refresh`."""
        with self._lock:
            return {uid: record for uid, record in self._records.items() if record.state in states}

    def passed(self, uids: Sequence[str], as_of: Instant, *, crossed: bool = False) -> None:
        """Remember passes that this process has planned, or (`crossed`) that had nothing to find."""
        with self._lock:
            for uid in uids:
                record = self._records[uid]
                self._records[uid] = replace(
                    record, pass_as_of=as_of, crossed_to=as_of if crossed else record.crossed_to
                )
