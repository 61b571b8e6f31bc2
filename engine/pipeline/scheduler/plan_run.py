"""Plan a run: cut it into slices with deterministic ids, so that planning it twice yields the same slices."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from engine.clock import Clock, Instant, millis
from engine.decisions.access_path_cost import pieces
from engine.domain.campaign import CampaignRecord
from engine.domain.keys import HIGHEST, cut, run_id, slice_id, suffix_of_enrolment
from engine.domain.lifecycle import CampaignState, RunState
from engine.domain.work import OF_USERS, SLICE_OF_RUN, AccessPath, Run, RunKind, Slice, SliceKind
from engine.failpoints import passage
from engine.pipeline.campaigns.compiled_cache import CampaignCache
from engine.pipeline.ports.campaigns import CampaignStore
from engine.pipeline.ports.enrolments import EnrolmentStore
from engine.pipeline.ports.messaging import Wakeup
from engine.pipeline.ports.work import RunStore, SliceStore
from engine.pipeline.scheduler.access_path import AccessPathChooser, Chosen
from engine.telemetry.events import emit

MOST_FOUND: Final = 100_000
"""Due or idle enrolments per run. The next run takes the rest, so that a burst does not exhaust the memory."""

MOST_PIECES: Final = 4_096
"""Slices per run: with 20,000 users each that is 80 million users."""

FROM_THE_LAUNCH: Final = frozenset({RunKind.LAUNCH})


class RunPlanner:
    """Creates runs, and plans them for the actor `plan_run`."""

    def __init__(
        self,
        *,
        runs: RunStore,
        slices: SliceStore,
        campaigns: CampaignStore,
        enrolments: EnrolmentStore,
        campaign_cache: CampaignCache,
        access_paths: AccessPathChooser,
        wakeup: Wakeup,
        clock: Clock,
    ) -> None:
        self._runs = runs
        self._slices = slices
        self._campaigns = campaigns
        self._enrolments = enrolments
        self._campaign_cache = campaign_cache
        self._access_paths = access_paths
        self._wakeup = wakeup
        self._clock = clock

    def start(
        self,
        record: CampaignRecord,
        kind: RunKind,
        as_of: Instant,
        *,
        after: Instant | None = None,
        path: AccessPath | None = None,
        takes_over: bool = False,
    ) -> Run:
        """Write a run that is to be planned; return the existing run if there is one.

        A campaign has one launch run, one pass and one full pass at an `as_of`, and any number of due and idle runs.
        `after` is the `as_of` of the pass before it, `path` the access path that a person asked for.
        `takes_over` says that slices of that pass were dropped.
        """
        number = "1" if kind is RunKind.LAUNCH else f"{as_of:015d}"
        if kind in (RunKind.DUE, RunKind.IDLE):
            number += f"/{self._runs.count(record.uid, kind, as_of) + 1:04d}"
        path = path or (record.path if kind in FROM_THE_LAUNCH else None)
        return self._add(record, number, kind, as_of, after=after, path=path, takes_over=takes_over)

    def evaluation(self, record: CampaignRecord, kind: RunKind, as_of: Instant) -> Run:
        """Write the run of a kind for the evaluation that a command wants: one per evaluation, even with two clocks."""
        return self._add(record, f"evaluation/{record.evaluation_wanted:06d}", kind, as_of)

    def _add(
        self,
        record: CampaignRecord,
        number: str,
        kind: RunKind,
        as_of: Instant,
        *,
        after: Instant | None = None,
        path: AccessPath | None = None,
        takes_over: bool = False,
    ) -> Run:
        run = Run(
            id=run_id(record.workspace, record.uid, kind.value, number),
            workspace=record.workspace,
            campaign=record.uid,
            kind=kind,
            as_of=as_of,
            state=RunState.PLANNING,
            after=after,
            path=path,
            evaluation=record.evaluation_wanted,
            takes_over=takes_over,
            inactivity=millis(self._campaign_cache.profile(record).inactivity),
            policy=self._campaign_cache.policies.version,
        )
        if self._runs.add(run):
            passage("run.started")
            return run
        return self._runs.get(run.id) or run

    def pieces(self, record: CampaignRecord) -> int:
        """Return into how many slices the users of a campaign's workspace are cut, by its profile's `slice_users`."""
        users = self._access_paths.size(record.workspace)
        return max(1, min(MOST_PIECES, -(-users // self._campaign_cache.profile(record).slice_users)))

    def run(self, run_id: str) -> bool:
        """Cut a run into slices. Safe to call twice, late, or for a run that is gone.

        Return True if this call planned the run and it has no slice, so that the caller must close it.
        """
        run = self._runs.get(run_id)
        record = None if run is None else self._campaigns.get(run.campaign)
        if run is None or record is None or run.state is not RunState.PLANNING:
            return False
        if record.state is CampaignState.SCHEDULED:
            return False  # the clock died before it made the campaign live; an edit may come before another clock does
        plan: dict[str, object] = {}
        kind = SLICE_OF_RUN[run.kind]
        if kind is SliceKind.CANDIDATES:
            parts, plan = self.candidates(run, record)
        elif kind in (SliceKind.DUE, SliceKind.IDLE):
            parts = self._enrolment_slices(run, record)
        else:
            before = self._slices.of_run(run.id)
            number = (before[0].of if before else None) or self.pieces(record)
            parts = _cut(run, number)
        self._slices.add(parts)
        passage("plan.sliced")
        if self._runs.move(run, RunState.RUNNING, plan=plan, pieces=len(parts)):
            emit(
                "run.planned",
                workspace=run.workspace,
                campaign=record.name,
                campaign_uid=run.campaign,
                run=run.id,
                kind=run.kind.value,
                as_of=run.as_of,
                slices=len(parts),
                path=plan.get("path"),
            )
        else:
            self._drop_late(run)
        self._wakeup.ring()
        return not parts

    def _drop_late(self, run: Run) -> None:
        """Drop the slices of a run that was dropped while it was being cut."""
        now = self._runs.get(run.id)
        if now is not None and now.state is RunState.DROPPED:
            self._slices.drop_unclaimed(run.id)

    def candidates(self, run: Run, record: CampaignRecord) -> tuple[list[Slice], dict[str, object]]:
        """Cut the hash space by the chosen path; a run that was cut before its planner died keeps its slices."""
        entry = self._campaign_cache.of(record)
        candidates = entry.compiled.candidates(run.after, run.as_of)
        if candidates.nobody:
            return [], {"why": "no user can match"}
        before = self._slices.of_run(run.id)
        if before:
            number, path = before[0].of or len(before), before[0].path
            plan: dict[str, object] = {"path": None if path is None else path.value, "why": "planned before a crash"}
        else:
            chosen = self._access_paths.for_run(run, entry, candidates)
            profile = self._campaign_cache.profile(record)
            number, path = pieces(chosen.estimate, profile.slice_users, profile.in_flight), chosen.path
            plan = _plan_document(chosen)
        number = max(1, min(MOST_PIECES, number))
        return _cut(replace(run, path=path), number), plan

    def _enrolment_slices(self, run: Run, record: CampaignRecord) -> list[Slice]:
        """Cut the ranges in which enrolments are due or idle, from a covered read sorted by key.

        The new slices are numbered after those of a planner that died: it may have found other enrolments, and an
        existing slice never changes.
        """
        profile = self._campaign_cache.profile(record)
        if run.kind is RunKind.DUE:
            ids = self._enrolments.due_ids(run.campaign, run.as_of, MOST_FOUND)
        else:
            ids = self._enrolments.idle_ids(run.campaign, run.as_of - millis(profile.inactivity), MOST_FOUND)
        if not ids:
            return []  # another run has evaluated them meanwhile
        firsts = [suffix_of_enrolment(ids[i]) for i in range(0, len(ids), profile.slice_users)]
        last = suffix_of_enrolment(ids[-1]) + "/" + HIGHEST
        there = len(self._slices.of_run(run.id))
        return [
            _slice(run, i, first, until)
            for i, (first, until) in enumerate(zip(firsts, [*firsts[1:], last], strict=True), there)
        ]


def _plan_document(chosen: Chosen) -> dict[str, object]:
    """Return the plan as the report shows it beside the measured cost of the run."""
    return {
        "path": chosen.path.value,
        "users": chosen.users,
        "matches": chosen.matches,
        "reads": chosen.estimate.users,
        "seconds": round(chosen.estimate.seconds, 4),
        "operations": chosen.estimate.operations,
        "why": chosen.why,
    }


def _cut(run: Run, number: int) -> list[Slice]:
    """Cut the hash space into `number` slices. Each stores `number`, so planning after a crash cuts the same way."""
    return [replace(_slice(run, i, first, until), of=number) for i, (first, until) in enumerate(cut(number))]


def _slice(run: Run, number: int, first: str, until: str) -> Slice:
    kind: SliceKind = SLICE_OF_RUN[run.kind]
    return Slice(
        slice_id(run.id, number),
        run.id,
        run.workspace,
        run.campaign,
        kind,
        run.as_of,
        first,
        until,
        after=run.after,
        path=run.path if kind in OF_USERS else None,
    )
