"""The clock's tick: recover expired leases, launch, plan runs and deliveries, finish campaigns, dispatch slices.

Every step reads the present state and writes with deterministic ids or compare-and-sets. So two concurrent clocks are
harmless, and a missed tick only costs time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from functools import partial
from typing import Final

from engine.clock import Clock, Instant
from engine.domain.campaign import ONE_OFF, CampaignRecord
from engine.domain.keys import cut, enrolment_prefix, slice_id
from engine.domain.lifecycle import GOING, LOOKED_AT, CampaignState, RunState
from engine.domain.stuck import StuckBy
from engine.domain.work import Run, RunKind, Slice, SliceKind
from engine.pipeline.campaigns.compiled_cache import CampaignCache
from engine.pipeline.campaigns.health import refused
from engine.pipeline.campaigns.live_index import LiveCampaigns
from engine.pipeline.delivery.sender_lease import GRACE, SENDERS
from engine.pipeline.ports.campaigns import CampaignStore, Debts
from engine.pipeline.ports.deliveries import DeliveryStore
from engine.pipeline.ports.enrolments import EnrolmentStore
from engine.pipeline.ports.feed import Suspects
from engine.pipeline.ports.messaging import Messenger
from engine.pipeline.ports.work import LeaseReads, RunStore, SliceStore
from engine.pipeline.scheduler.completion import RunCompletion
from engine.pipeline.scheduler.conversion_window import ConversionDeadlines
from engine.pipeline.scheduler.dispatch import Dispatcher
from engine.pipeline.scheduler.expired_leases import ExpiredLeases
from engine.pipeline.scheduler.owed_evaluations import OwedEvaluations
from engine.pipeline.scheduler.periodic_passes import PeriodicPasses
from engine.pipeline.scheduler.plan_run import RunPlanner
from engine.pipeline.scheduler.stuck_campaigns import Obstacles, stuck
from engine.telemetry.events import emit

WATCHED: Final = (
    CampaignState.SCHEDULED,
    CampaignState.LIVE,
    CampaignState.PAUSED,
    CampaignState.DRAINING,
    CampaignState.CANCELLED,
)
ASK_AGAIN: Final = 5.0
"""Seconds after which the clock enqueues a run again that is still in planning, or has no open slice."""

DEBTS_EVERY: Final = 1.0
"""Seconds between two reads of the campaigns that owe everybody an evaluation."""

DUE_EVERY: Final = 3.0
"""Seconds from one due run of a campaign to the next while its deliveries flow.

Each window that settles makes some of its enrolments due, and a run costs the same whether it evaluates ten or ten
thousand.
"""

MOST_FINISHED: Final = 50
"""Campaigns that one tick checks for their end."""


def watched(record: CampaignRecord) -> bool:
    """Return whether the clock may have work for the campaign in its state."""
    return record.state in WATCHED


def working(record: CampaignRecord) -> bool:
    """Return whether workers process the campaign's runs and slices: while it is watched, and while it converts."""
    return watched(record) or record.converting


def timed(record: CampaignRecord) -> bool:
    """Return whether the clock may launch the campaign, or close its intake, at a set time."""
    return record.state is CampaignState.SCHEDULED or (
        record.state is CampaignState.LIVE and record.ends_at is not None
    )


def cancelled_and_over(record: CampaignRecord) -> bool:
    """Return whether the campaign is cancelled and the run over its enrolments is done.

    A delivering slice then ends the deliveries that are still on their way.
    """
    return record.state is CampaignState.CANCELLED and not record.evaluation_owed


def finished(record: CampaignRecord) -> bool:
    """Return whether the campaign has ended by itself; a delivery that is queued again then reopens it."""
    return record.state is CampaignState.FINISHED


def resting(record: CampaignRecord) -> bool:
    """Return whether the clock watches the campaign, but its state allows no evaluation."""
    return watched(record) and record.state not in LOOKED_AT


def ending(record: CampaignRecord) -> bool:
    """Return whether the campaign may finish as soon as its counts add up."""
    return record.state is CampaignState.DRAINING or (record.state is CampaignState.LIVE and record.kind == ONE_OFF)


class ClockTick:
    """One tick of the clock. `time` returns campaign time, and whether it is fixed until a command advances it."""

    def __init__(
        self,
        *,
        campaigns: CampaignStore,
        runs: RunStore,
        slices: SliceStore,
        enrolments: EnrolmentStore,
        deliveries: DeliveryStore,
        campaign_cache: CampaignCache,
        run_planner: RunPlanner,
        run_completion: RunCompletion,
        expired_leases: ExpiredLeases,
        dispatcher: Dispatcher,
        messenger: Callable[[], Messenger],
        clock: Clock,
        time: Callable[[], tuple[Instant, bool]],
        live_campaigns: LiveCampaigns,
        passing: PeriodicPasses,
        owed: OwedEvaluations,
        rechecker: Suspects,
        conversion_deadlines: ConversionDeadlines,
        obstacles: Obstacles,
        debts: Debts,
        leases: LeaseReads,
    ) -> None:
        self._leases = leases
        self._conversion_deadlines = conversion_deadlines
        self._obstacles = obstacles
        self._debts = debts
        self._debts_read = float("-inf")
        self._live_campaigns = live_campaigns
        self._passing = passing
        self._owed = owed
        self._rechecker = rechecker
        self._campaigns = campaigns
        self._runs = runs
        self._slices = slices
        self._enrolments = enrolments
        self._deliveries = deliveries
        self._campaign_cache = campaign_cache
        self._run_planner = run_planner
        self._run_completion = run_completion
        self._expired_leases = expired_leases
        self._dispatcher = dispatcher
        self._messenger = messenger
        self._clock = clock
        self.time = time
        self._asked_at: dict[str, float] = {}
        self._due_began: dict[str, float] = {}
        self._finished_to = ""

    def run(self) -> int:
        """Run one tick; return how many things it started, 0 if there was nothing to do."""
        now, jumped = self.time()
        self._expired_leases.run()
        self._live_campaigns.refresh()
        records = self._live_campaigns.where(watched)
        unchecked = self._obstacles.check(self._live_campaigns.where(working), self._live_campaigns.generation)
        open_runs = self._runs.undecided()
        known = {run.id for run in open_runs}
        self._asked_at = {run_id: asked_at for run_id, asked_at in self._asked_at.items() if run_id in known}
        moved = sum(
            self._obstacles.attempt(record, "launch it or close its intake", partial(self._by_time, record, now), False)
            for record in self._live_campaigns.where(timed).values()
            if record.uid not in self._obstacles.unfit
        )
        moved += unchecked + self._pay(self._live_campaigns.where(working))
        owed = self._owed.run(open_runs, now, without=self._obstacles.unfit)
        for run in [*owed, *self._passing.run([*open_runs, *owed], now, jumped=jumped)]:
            self._ask_plan(run.id)
            moved += 1
        moved += self._due(self._live_campaigns.where(working), open_runs, now, stands=jumped)
        moved += self._undecided(open_runs)
        moved += self._deliver(records, {run.campaign for run in open_runs}, now)
        moved += self._enqueue_rechecks(now)
        moved += self._finish()
        moved += self._conversion_deadlines.run(now)
        self._forget_refusals()
        return moved + self._dispatcher.run(
            self._live_campaigns.where(working), self._live_campaigns.where(stuck), open_runs
        )

    def _enqueue_rechecks(self, now: Instant) -> int:
        """Enqueue waiting re-evaluation requests, including those whose message was lost."""
        count = self._rechecker.suspects()
        if self._rechecker.waiting(now):
            self._messenger().recheck()
            count += 1
        return count

    def _finish(self) -> int:
        """Finish campaigns whose counts add up. Each tick checks some in turn, because each costs several queries."""
        records = self._live_campaigns.where(ending)
        uids = sorted(records)
        turn = [uid for uid in uids if uid > self._finished_to][:MOST_FINISHED] or uids[:MOST_FINISHED]
        self._finished_to = turn[-1] if len(turn) == MOST_FINISHED else ""
        return sum(
            self._obstacles.attempt(
                records[uid], "finish it", partial(self._run_completion.campaign, records[uid]), False
            )
            for uid in turn
        )

    def _forget_refusals(self) -> None:
        """Clear the provider's refusal of campaigns with no outgoing delivery: the users have left or were skipped."""
        for uid in self._live_campaigns.where(refused):
            if not self._deliveries.has_outgoing([uid], None):
                self._campaigns.set_stuck(uid, StuckBy.SENDER, None)

    def _by_time(self, record: CampaignRecord, now: Instant) -> bool:
        """Launch a scheduled campaign, or close the intake of a live one, when its time has come."""
        if record.state is CampaignState.SCHEDULED and (record.starts_at or 0) <= now:
            return self.launch(record, now)
        if record.state is CampaignState.LIVE and record.ends_at is not None and record.ends_at <= now:
            moved = self._campaigns.move(record, CampaignState.DRAINING)
            if moved:
                emit("campaign.draining", workspace=record.workspace, campaign=record.name, campaign_uid=record.uid)
            return moved
        return False

    def launch(self, record: CampaignRecord, now: Instant) -> bool:
        """Write the launch run, then make the campaign live: nothing is decided before it is live."""
        run = self._run_planner.start(record, RunKind.LAUNCH, now)
        at = run.as_of
        moved = self._campaigns.move(record, CampaignState.LIVE, launched_at=at, pass_as_of=at, reconciled_at=at)
        if moved:
            emit("campaign.started", workspace=record.workspace, campaign=record.name, campaign_uid=record.uid)
            self._ask_plan(run.id)
        return moved

    def _pay(self, records: Mapping[str, CampaignRecord]) -> int:
        """Request an evaluation of everybody in each campaign that missed changes while it did not fit its workspace.

        In an ended campaign the evaluation counts the conversions of that time. A paused campaign waits for its resume.
        """
        if self._clock.monotonic() - self._debts_read < DEBTS_EVERY:
            return 0
        self._debts_read = self._clock.monotonic()
        count = 0
        for uid, debt in self._debts.read().items():
            record = records.get(uid)
            if record is None or (record.state is CampaignState.CANCELLED and not record.converting):
                self._debts.paid(uid, debt)
            elif (record.state in GOING or record.converting) and uid not in self._obstacles.unfit:
                self._campaigns.want_everybody(uid)
                self._debts.paid(uid, debt)
                count += 1
        if count:
            self._live_campaigns.refresh()
        return count

    def _due(self, records: Mapping[str, CampaignRecord], open_runs: list[Run], now: Instant, *, stands: bool) -> int:
        """Plan a due run for each campaign with a due enrolment; if there is none, one query shows it.

        A campaign whose deliveries flow gets a due run every `DUE_EVERY`. If campaign time `stands`, the person who set
        it waits for the due work, so the campaign gets its run at once.
        """
        at = self._clock.monotonic()
        self._due_began = {uid: began for uid, began in self._due_began.items() if at - began < DUE_EVERY}
        flowing: Set[str] | None = None
        leave_out = {run.campaign for run in open_runs if run.kind is RunKind.DUE}
        leave_out |= self._live_campaigns.where(resting).keys() | self._obstacles.unfit
        count = 0
        while (uid := self._enrolments.first_due_campaign(now, sorted(leave_out))) is not None:
            leave_out.add(uid)
            if uid not in records:
                self._enrolments.clear_due(uid)  # the campaign ended while this enrolment was being settled
                continue
            if uid in self._due_began and not stands:
                if flowing is None:
                    flowing = self._slices.campaigns_with_open(SliceKind.DELIVER)
                if uid in flowing:
                    continue
            count += self._obstacles.attempt(
                records[uid], "plan due work", partial(self._due_run, records[uid], now), 0
            )
        return count

    def _due_run(self, record: CampaignRecord, now: Instant) -> int:
        self._ask_plan(self._run_planner.start(record, RunKind.DUE, now).id)
        self._due_began[record.uid] = self._clock.monotonic()
        return 1

    def _undecided(self, open_runs: list[Run]) -> int:
        """Enqueue runs that need planning and runs with no open slice, repeatedly in case a message was lost."""
        at = self._clock.monotonic()
        count = 0
        now = self._clock.system_now()
        for run in open_runs:
            resting = run.failure is not None and run.failure.until > now
            if resting or run.campaign in self._obstacles.unfit:
                continue
            fresh = run.id not in self._asked_at  # a clock made it and was killed before it enqueued the run
            if not fresh and at - self._asked_at.setdefault(run.id, at) < ASK_AGAIN:
                continue
            self._asked_at[run.id] = at
            if run.state is RunState.PLANNING:
                self._messenger().plan(run.id)
                count += 1
            elif not self._slices.has_open(run.id):
                self._messenger().finish(run.id)
                count += 1
        return count

    def _deliver(self, records: Mapping[str, CampaignRecord], undecided: Set[str], now: Instant) -> int:
        """Add delivering slices for each campaign that has outgoing deliveries and no open delivering slice.

        A paused campaign gets them at its resume. A cancelled campaign gets them after the run over its enrolments
        (`undecided` holds the campaigns with an open run), for the deliveries that evaluations must not touch.
        """
        if not self._deliveries.has_outgoing(None, None):
            return 0
        leave_out = self._slices.campaigns_with_open(SliceKind.DELIVER)
        cancelled = {uid for uid in self._live_campaigns.where(cancelled_and_over) if uid not in undecided}
        leave_out |= {uid for uid, record in records.items() if record.state not in GOING and uid not in cancelled}
        leave_out |= self._obstacles.unfit
        count = 0
        living = self._leases.living(SENDERS, GRACE)
        while (uid := self._deliveries.first_campaign(now, sorted(leave_out), living)) is not None:
            leave_out.add(uid)
            if uid in records:
                record = records[uid]
                count += self._obstacles.attempt(
                    record, "plan deliveries", partial(self.plan_deliveries, record, now), 0
                )
            elif uid in self._live_campaigns.where(finished):
                count += self._reopen(self._live_campaigns.where(finished)[uid])
        return count

    def _reopen(self, record: CampaignRecord) -> bool:
        """Let a finished campaign drain again: a failed delivery was queued again when, or after, it finished."""
        moved = self._campaigns.move(record, CampaignState.DRAINING, finished_at=None)
        if moved:
            emit("campaign.draining", workspace=record.workspace, campaign=record.name, campaign_uid=record.uid)
        return moved

    def plan_deliveries(self, record: CampaignRecord, now: Instant) -> int:
        """Add one round of delivering slices over all users of a campaign."""
        pieces = min(self._run_planner.pieces(record), self._campaign_cache.profile(record).in_flight)
        name = f"{enrolment_prefix(record.workspace, record.uid)}deliver/{self._clock.system_now():015d}"
        self._slices.add(
            [
                Slice(
                    slice_id(name, i),
                    None,
                    record.workspace,
                    record.uid,
                    SliceKind.DELIVER,
                    now,
                    first,
                    until,
                    of=pieces,
                )
                for i, (first, until) in enumerate(cut(pieces))
            ]
        )
        return 1

    def _ask_plan(self, run_id: str) -> None:
        self._asked_at[run_id] = self._clock.monotonic()
        self._messenger().plan(run_id)
