"""Conversions of campaigns that have ended: until when they are counted, and when that is over.

A goal's window goes on after the last message. A campaign that ends keeps in its record where the last window closes
(`CampaignRecord.converting_until`); as long as it stands there, the feed and time bring evaluations of it that count
conversions and do nothing else. Events may arrive `LATE` after that; then the mark is taken away, so that campaigns
that ended long ago cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.clock import Clock, Instant, millis, parse_duration
from engine.domain.campaign import FOR_EVER, LATE, ONE_OFF, CampaignRecord
from engine.domain.keys import stay_prefix
from engine.pipeline.ports import CampaignStore, Debts, RunStore, StayStore
from engine.pipeline.roster import Roster
from engine.pipeline.sources import FeedStore, LookStore
from engine.pipeline.waiting import caught_up
from engine.telemetry.events import emit

PATIENCE: Final = 3600.0
"""Seconds for which looks that wait keep a campaign from being closed: where there are always some, none is as old."""


def closing(record: CampaignRecord) -> bool:
    """Whether it has ended, and its last goal window closes some time."""
    return record.converting and record.converting_until != FOR_EVER


def goal_window(record: CampaignRecord) -> Instant | None:
    """Milliseconds after an entry in which the goal counts; `FOR_EVER` without `within`, None without a goal."""
    goal = record.spec.get("goal") if isinstance(record.spec, Mapping) else None
    if not isinstance(goal, Mapping):
        return None
    within = goal.get("within")
    return FOR_EVER if within is None else millis(parse_duration(str(within)))


def window_end(record: CampaignRecord, last_entry: Instant | None) -> Instant | None:
    """Where the goal window of who entered at `last_entry` closes, or `FOR_EVER`; None: no goal, or nobody entered."""
    window = goal_window(record)
    if window is None or last_entry is None:
        return None
    return FOR_EVER if window == FOR_EVER else last_entry + window


def ends_at_once(record: CampaignRecord, now: Instant) -> Instant | None:
    """Until when conversions are counted at the latest in a campaign that ends at `now`, as far as its record tells.

    Everybody of a one-off campaign entered at its launch; in a continuous one somebody may have entered just now.
    """
    return window_end(record, record.launched_at if record.kind == ONE_OFF else now)


class Converting:
    """Tells until when a finished campaign counts conversions, and closes those whose time is over."""

    def __init__(
        self,
        *,
        campaigns: CampaignStore,
        runs: RunStore,
        stays: StayStore,
        looks: LookStore,
        feed: FeedStore,
        roster: Roster,
        clock: Clock,
        owed: Debts,
    ) -> None:
        self._owed = owed
        self._campaigns = campaigns
        self._runs = runs
        self._stays = stays
        self._looks = looks
        self._feed = feed
        self._roster = roster
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}  # where the feed has to come to, and when it was seen to be over

    def until(self, record: CampaignRecord) -> Instant | None:
        """Where the last goal window closes of a campaign that finishes now; None where there is nothing to count."""
        if record.kind == ONE_OFF or goal_window(record) is None:
            return ends_at_once(record, 0)
        return window_end(record, self._stays.last_entered(stay_prefix(record.workspace, record.uid)))

    def run(self, now: Instant) -> int:
        """Close campaigns whose windows have been over for `LATE`; gives how many.

        Not before everything that was there when that was seen has been handled: campaign time may be set on past the
        end of the windows while changes from before it are still on their way.
        One that is still stuck then is closed without what was not counted.
        """
        over = {
            uid: record
            for uid, record in self._roster.those(closing).items()
            if record.converting_until is not None and record.converting_until + LATE < now
        }
        self._seen = {uid: seen for uid, seen in self._seen.items() if uid in over}
        return sum(self._close(record, now) for record in over.values())

    def _close(self, record: CampaignRecord, now: Instant) -> bool:
        at = self._clock.monotonic()
        changed_to, since = self._seen.setdefault(record.uid, (self._feed.now(), at))
        if not caught_up(self._feed, self._clock, changed_to, 0):
            self._seen[record.uid] = changed_to, at
            return False
        lost = bool(record.stuck_by)  # nobody has mended its file in all that time: what was not counted stays so
        if not lost and (record.evaluation_owed or record.uid in self._owed.read()):
            return False
        if self._looks.any(now) and at - since < PATIENCE:
            return False
        if (not lost and self._stays.due_ids(record.uid, now, 1)) or self._runs.undecided([record.uid]):
            return False
        if not self._campaigns.close_conversions(record.uid):
            return False
        self._stays.clear_due(record.uid)
        emit("campaign.closed", workspace=record.workspace, campaign=record.name, campaign_uid=record.uid)
        return True
