"""Plan passes: find the users and enrolments that the passing of time alone affects, beside due enrolments.

A pass of a campaign finds idle enrolments by their own index, and users who match its audience by time alone, by its
crossing sets. At intervals a full pass evaluates everybody, as a safety net. One query serves all campaigns with the
same inactivity window, and a pass that would find nothing leaves no run behind. `engine.decisions.overlap` says what
becomes of a pass whose campaign still has an open run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Final

from engine.clock import Instant, millis
from engine.decisions.overlap import Pass, last_slot, overlapping
from engine.domain.campaign import CONTINUOUS, CampaignRecord
from engine.domain.lifecycle import GOING, CampaignState
from engine.domain.work import Run, RunKind
from engine.pipeline.campaigns.compiled_cache import CampaignCache, Entry
from engine.pipeline.campaigns.live_index import LiveCampaigns
from engine.pipeline.ports.campaigns import CampaignStore
from engine.pipeline.ports.enrolments import EnrolmentStore
from engine.pipeline.scheduler.drop_run import RunDropper
from engine.pipeline.scheduler.plan_run import RunPlanner
from engine.pipeline.scheduler.stuck_campaigns import Obstacles
from engine.policy.policyset import PolicySet
from engine.predicate.compiled import Candidates
from engine.telemetry.events import emit

MARGIN: Final = timedelta(minutes=1)
"""The crossing interval starts this much before the last pass: the clocks of two machines may differ by that."""


def going(record: CampaignRecord) -> bool:
    """Return whether the campaign gets passes at all."""
    return record.state in GOING


class PeriodicPasses:
    """Plans the passes of all campaigns whose time has come."""

    def __init__(
        self,
        *,
        campaigns: CampaignStore,
        enrolments: EnrolmentStore,
        campaign_cache: CampaignCache,
        run_planner: RunPlanner,
        run_dropper: RunDropper,
        live_campaigns: LiveCampaigns,
        probe: Callable[[Entry, Candidates], bool],
        obstacles: Obstacles,
    ) -> None:
        """`probe` returns whether a pass over these candidates could find anybody (`AccessPathChooser.probe`)."""
        self._campaigns = campaigns
        self._enrolments = enrolments
        self._campaign_cache = campaign_cache
        self._run_planner = run_planner
        self._run_dropper = run_dropper
        self._live_campaigns = live_campaigns
        self._probe = probe
        self._obstacles = obstacles
        self._order: list[tuple[Instant, str]] = []  # a heap by the earliest time of each campaign's next pass
        self._ordered_for: tuple[int, PolicySet | None] = (-1, None)
        self._told: dict[str, Instant] = {}  # the waiting pass of each campaign that the log has named

    def run(self, open_runs: Sequence[Run], now: Instant, *, jumped: bool) -> list[Run]:
        """Return the runs to plan; with `jumped`, campaign time is set, and any move of it brings a pass at once."""
        coming = [record for record in self._coming(now, jumped=jumped) if record.uid not in self._obstacles.unfit]
        taking_over: set[str] = set()
        passing = self._free(coming, open_runs, now, taking_over, jumped=jumped) if coming else []
        if not passing:
            return []
        runs = self._idle(passing, now)
        nothing: list[str] = []
        failed: set[str] = set()
        for record in passing:
            start = partial(self._entered, record, now, takes_over=record.uid in taking_over)
            planned: tuple[Run | None] | None = self._obstacles.attempt(record, "plan a pass", start, None)
            if planned is None:
                failed.add(record.uid)
            elif planned[0] is None:
                nothing.append(record.uid)
            else:
                runs.append(planned[0])
        entered = [record.uid for record in passing if record.uid not in failed.union(nothing)]
        for uids, crossed in ((nothing, True), (entered, False)):
            if uids:
                self._campaigns.passed(uids, now, crossed=crossed)
                self._live_campaigns.passed(uids, now, crossed=crossed)
        return runs

    def _free(
        self,
        coming: Sequence[CampaignRecord],
        open_runs: Sequence[Run],
        now: Instant,
        taking_over: set[str],
        *,
        jumped: bool,
    ) -> list[CampaignRecord]:
        """Return the campaigns whose pass may start: those without an open run, and those whose pass takes over.

        Note the latter in `taking_over` and drop their open runs; note the passes that are left out as passed.
        """
        by_campaign: dict[str, list[Run]] = defaultdict(list)
        for run in open_runs:
            if run.kind is not RunKind.DUE:
                by_campaign[run.campaign].append(run)
        free: list[CampaignRecord] = []
        left_out: dict[Instant, list[str]] = defaultdict(list)
        for record in coming:
            runs = by_campaign.get(record.uid)
            if runs is None:
                free.append(record)
                continue
            profile = self._campaign_cache.profile(record)
            match overlapping(profile.overlap, runs, time_is_set=jumped):
                case Pass.LEFT_OUT:
                    slot = last_slot(self._at(record), max(1, millis(profile.pass_every)), now)
                    left_out[slot].append(record.uid)
                    self._tell(record, runs[0], Pass.LEFT_OUT)
                case Pass.WAITS:
                    if self._told.get(record.uid) != record.pass_as_of:
                        self._told[record.uid] = record.pass_as_of
                        self._tell(record, runs[0], Pass.WAITS)
                case Pass.TAKES_OVER:
                    self._tell(record, runs[0], Pass.TAKES_OVER)
                    for run in runs:
                        self._run_dropper.drop(run, record, profile.overlap.value)
                    free.append(record)
                    taking_over.add(record.uid)
        for slot, uids in left_out.items():
            self._campaigns.passed(uids, slot)
            self._live_campaigns.passed(uids, slot)
        return free

    @staticmethod
    def _tell(record: CampaignRecord, run: Run, outcome: Pass) -> None:
        labels = {"workspace": record.workspace, "campaign": record.name, "campaign_uid": record.uid}
        emit("pass.overlapped", **labels, run=run.id, kind=run.kind.value, reason=outcome.value)

    def _coming(self, now: Instant, *, jumped: bool) -> list[CampaignRecord]:
        """Return the campaigns whose pass is due by `now`, in no order."""
        records = self._live_campaigns.where(going)
        if jumped:
            return [record for record in records.values() if record.pass_as_of < now]
        generation, policies = self._live_campaigns.generation, self._campaign_cache.policies
        if generation != self._ordered_for[0] or policies is not self._ordered_for[1]:
            self._ordered_for = generation, policies
            self._order = [(self._at(record), uid) for uid, record in records.items()]
            heapify(self._order)
        coming: list[CampaignRecord] = []
        while self._order and self._order[0][0] <= now:
            uid = heappop(self._order)[1]
            record = records.get(uid)
            if record is None:
                continue
            if self._at(record) <= now:
                coming.append(record)
            else:
                heappush(self._order, (self._at(record), uid))  # it was passed after it went into the heap
        for record in coming:
            heappush(self._order, (self._at(record), record.uid))
        return coming

    def _at(self, record: CampaignRecord) -> Instant:
        """Return when the campaign's next pass is due."""
        return record.pass_as_of + max(1, millis(self._campaign_cache.profile(record).pass_every))

    def _idle(self, passing: Sequence[CampaignRecord], now: Instant) -> list[Run]:
        """Start a run for each campaign with idle enrolments; a window without any costs one query."""
        windows: dict[timedelta, dict[str, CampaignRecord]] = defaultdict(dict)
        for record in passing:
            window = self._campaign_cache.profile(record).inactivity
            if now >= record.resumed_at + millis(window):
                windows[window][record.uid] = record
        runs: list[Run] = []
        for window, records in windows.items():
            left = dict(records)
            before = now - millis(window)
            while left and (uid := self._enrolments.first_idle_campaign(list(left), before)) is not None:
                runs.append(self._run_planner.start(left.pop(uid), RunKind.IDLE, now))
        return runs

    def _entered(self, record: CampaignRecord, now: Instant, *, takes_over: bool) -> tuple[Run | None] | None:
        return (self._audience_run(record, now, takes_over=takes_over),)

    def _audience_run(self, record: CampaignRecord, now: Instant, *, takes_over: bool) -> Run | None:
        """Start the run that finds users who may enter, or evaluates everybody; None if there is nothing to find."""
        reconciling = now - record.reconciled_at >= millis(self._campaign_cache.profile(record).reconcile)
        if record.state is not CampaignState.LIVE or record.kind != CONTINUOUS:
            if not reconciling:
                return None
            self._campaigns.crossed([record.uid], now, reconciled=True)
            return self._run_planner.start(record, RunKind.STAYS, now)
        if reconciling:
            return self._run_planner.start(record, RunKind.RECONCILE, now)
        after = max(0, record.crossed_to - millis(MARGIN))
        entry = self._campaign_cache.of(record)
        if not entry.compiled.moves or not self._probe(entry, entry.compiled.candidates(after, now)):
            return None
        return self._run_planner.start(record, RunKind.PASS, now, after=after, takes_over=takes_over)
