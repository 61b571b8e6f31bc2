"""Count conversions of ended campaigns: until when they count, and when a campaign is closed for them.

A goal's window continues after the last message. A campaign that ends stores when its last window closes
(`CampaignRecord.converting_until`). While that mark is set, the feed and time bring evaluations of the campaign that
count conversions and do nothing else. Events may arrive up to `LATE` after that. Then the clock removes the mark, so
that campaigns that ended long ago cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.clock import Clock, Instant, millis, parse_duration
from engine.domain.campaign import FOR_EVER, LATE, ONE_OFF, CampaignRecord
from engine.domain.keys import enrolment_prefix
from engine.pipeline.campaigns.live_index import LiveCampaigns
from engine.pipeline.feed.catch_up import caught_up
from engine.pipeline.ports.campaigns import CampaignStore, Debts
from engine.pipeline.ports.enrolments import EnrolmentStore
from engine.pipeline.ports.feed import FeedStore, RecheckStore
from engine.pipeline.ports.work import RunStore
from engine.telemetry.events import emit

PATIENCE: Final = 3600.0
"""Seconds for which waiting re-evaluation requests can delay a close.

A busy installation always has some waiting, but none that has waited this long.
"""


def closing(record: CampaignRecord) -> bool:
    """Return whether the campaign has ended, still counts conversions, and its last goal window closes at some time."""
    return record.converting and record.converting_until != FOR_EVER


def goal_window(record: CampaignRecord) -> Instant | None:
    """Return the length of the goal's window in milliseconds; `FOR_EVER` without `within`, None without a goal."""
    goal = record.spec.get("goal") if isinstance(record.spec, Mapping) else None
    if not isinstance(goal, Mapping):
        return None
    within = goal.get("within")
    return FOR_EVER if within is None else millis(parse_duration(str(within)))


def window_end(record: CampaignRecord, last_entry: Instant | None) -> Instant | None:
    """Return when the goal window of a user who entered at `last_entry` closes, or `FOR_EVER`.

    None means that the campaign has no goal, or that nobody has entered.
    """
    window = goal_window(record)
    if window is None or last_entry is None:
        return None
    return FOR_EVER if window == FOR_EVER else last_entry + window


def ends_at_once(record: CampaignRecord, now: Instant) -> Instant | None:
    """Return the latest time until which a campaign that ends at `now` counts conversions, by its record alone.

    All users of a one-off campaign enter at its launch; in a continuous one somebody may have entered just now.
    """
    return window_end(record, record.launched_at if record.kind == ONE_OFF else now)


class ConversionDeadlines:
    """Computes until when a campaign that has ended still counts conversions, and removes that mark when it is over.

    The mark is `converting_until`; without it the campaign is closed.
    """

    def __init__(
        self,
        *,
        campaigns: CampaignStore,
        runs: RunStore,
        enrolments: EnrolmentStore,
        rechecks: RecheckStore,
        feed: FeedStore,
        live_campaigns: LiveCampaigns,
        clock: Clock,
        owed: Debts,
    ) -> None:
        self._owed = owed
        self._campaigns = campaigns
        self._runs = runs
        self._enrolments = enrolments
        self._rechecks = rechecks
        self._feed = feed
        self._live_campaigns = live_campaigns
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}  # the feed position to wait for, and when it was last not reached

    def until(self, record: CampaignRecord) -> Instant | None:
        """Return when the last goal window of a campaign that finishes now closes; None if nothing can count."""
        if record.kind == ONE_OFF or goal_window(record) is None:
            return ends_at_once(record, 0)
        return window_end(record, self._enrolments.last_entered(enrolment_prefix(record.workspace, record.uid)))

    def run(self, now: Instant) -> int:
        """Close campaigns whose windows have been over for `LATE`; return how many.

        A close waits until the feed has handled everything that existed when the end was noticed: campaign time may be
        set past the end of the windows while changes from before it are still on their way. A campaign that is still
        stuck then is closed without the conversions that it could not count.
        """
        over = {
            uid: record
            for uid, record in self._live_campaigns.where(closing).items()
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
        lost = bool(record.stuck_by)  # nobody has fixed it in all that time: its uncounted conversions are lost
        if not lost and (record.evaluation_owed or record.uid in self._owed.read()):
            return False
        if self._rechecks.any(now) and at - since < PATIENCE:
            return False
        if (not lost and self._enrolments.due_ids(record.uid, now, 1)) or self._runs.undecided([record.uid]):
            return False
        if not self._campaigns.close_conversions(record.uid):
            return False
        self._enrolments.clear_due(record.uid)
        emit("campaign.closed", workspace=record.workspace, campaign=record.name, campaign_uid=record.uid)
        return True
