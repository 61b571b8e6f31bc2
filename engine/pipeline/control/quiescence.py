"""Report pending work; `clock advance` and the tests wait on it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from engine.clock import Clock
from engine.domain.campaign import CampaignRecord
from engine.domain.lifecycle import GOING, LOOKED_AT, CampaignState
from engine.domain.stuck import StuckBy
from engine.pipeline.feed.catch_up import caught_up
from engine.pipeline.ports.campaigns import CampaignStore, Debts
from engine.pipeline.ports.deliveries import DeliveryStore
from engine.pipeline.ports.enrolments import EnrolmentStore
from engine.pipeline.ports.feed import FeedStore, RecheckStore
from engine.pipeline.ports.work import RunStore
from engine.pipeline.scheduler.owed_evaluations import owing

CHANGED: Final = "changed users wait for their evaluation"

PATIENCE: Final = 1.0
"""Seconds that one query waits for the feed to catch up."""


class Quiescence:
    """Reports the work that is pending at the present campaign time."""

    def __init__(
        self,
        *,
        campaigns: CampaignStore,
        runs: RunStore,
        enrolments: EnrolmentStore,
        deliveries: DeliveryStore,
        clock: Clock,
        time_is_set: Callable[[], bool],
        rechecks: RecheckStore,
        feed: FeedStore,
        owed: Debts,
    ) -> None:
        self._owed = owed
        self._rechecks = rechecks
        self._feed = feed
        self._campaigns = campaigns
        self._runs = runs
        self._enrolments = enrolments
        self._deliveries = deliveries
        self._clock = clock
        self._time_is_set = time_is_set

    def stuck(self) -> dict[str, str]:
        """Return why campaigns cannot go on by themselves, by uid: `campaign NAME is stuck: REASON`.

        Paused campaigns are left out: they do not go on anyway.
        """
        return {record.uid: f"campaign {record.name} is stuck: {record.stuck}" for record in self._stuck()}

    def in_vain(self) -> str | None:
        """Return why waiting is useless: all pending work belongs to stuck campaigns. None if waiting may help."""
        stuck = self._stuck()
        if not stuck:
            return None
        what = self.what([record.uid for record in stuck])
        waiting = what == CHANGED and any(StuckBy.CHANGE in record.stuck_by for record in stuck)
        return None if what is not None and not waiting else "; ".join(self.stuck().values())

    def _stuck(self) -> list[CampaignRecord]:
        states = (CampaignState.SCHEDULED, *GOING, CampaignState.CANCELLED)
        records = {record.uid: record for record in (*self._campaigns.in_states(states), *self._campaigns.converting())}
        return [record for record in records.values() if record.stuck_by]

    def what(self, without: Collection[str] = ()) -> str | None:
        """Return one piece of pending work in words, or None. `without` holds uids of campaigns to leave out.

        Work moves from a change to an evaluation, and from a run to a delivery, to a due enrolment, to a run. The feed
        handles all changes before the last round of queries starts. In that round, no run is undecided at the first
        query and no run appears until the last one. So no work can have moved past the queries in between.

        Pending work is: a change that the feed has not handled, a re-evaluation request whose time has come, a
        scheduled campaign whose start has come, an evaluation that a command or missed changes require, a pass that the
        clock has not made since campaign time was set, an undecided run, a due enrolment, and an outgoing delivery
        unless it is put off in campaign time. Paused campaigns do not count, except for changes that may be conversions
        in them; the same holds for campaigns that have ended.
        """
        changed_to = self._feed.now()
        first = self._standing(without)
        if first is not None:
            return first
        if not self._campaigns.in_states((*GOING, CampaignState.PAUSED)) and not self._campaigns.any_converting():
            return None  # no change can affect a campaign
        if not caught_up(self._feed, self._clock, changed_to, PATIENCE):
            return "the feed has not handled every change yet (does it run?)"
        now = self._clock.campaign_now()
        if self._rechecks.any(now):
            return CHANGED
        return self._standing(without) or (CHANGED if self._rechecks.any(now) else None)

    def _standing(self, without: Collection[str]) -> str | None:
        """Return one piece of pending work in campaigns, runs, deliveries and enrolments, leaving out `without`."""
        now = self._clock.campaign_now()
        watched = self._campaigns.in_states(
            (
                CampaignState.SCHEDULED,
                CampaignState.LIVE,
                CampaignState.DRAINING,
                CampaignState.PAUSED,
                CampaignState.CANCELLED,
            )
        )
        records = {campaign.uid: campaign for campaign in (*watched, *self._campaigns.converting())}.values()
        owed = self._owed.read()
        for record in records:
            if record.uid in without:
                continue
            if (record.state in GOING or record.converting) and record.uid in owed:
                return f"campaign {record.name} has a pass pending"
            if record.state is CampaignState.SCHEDULED and (record.starts_at or 0) <= now:
                return f"campaign {record.name} waits for its launch"
            if owing(record):
                return f"campaign {record.name} has users to re-evaluate"
            going = record.state in GOING
            if going and self._time_is_set() and record.pass_as_of < now:
                return f"campaign {record.name} has a pass pending"
        moving = [
            campaign.uid
            for campaign in records
            if (campaign.state in LOOKED_AT or campaign.converting) and campaign.uid not in without
        ]
        standing = [record.uid for record in records if record.uid not in moving]
        runs = self._runs.count_all()
        for run in self._runs.undecided():
            if run.campaign not in standing:
                return f"run {run.id} is not decided"
        if self._deliveries.has_outgoing(None, now, leave_out=standing):
            return "a delivery is pending"
        due = self._enrolments.first_due_campaign(now, standing)
        if due is not None:
            return f"an enrolment in campaign {due} is due"
        return "a run was created meanwhile" if self._runs.count_all() != runs else None
