"""Plan the runs for the evaluations that edits, resumes and cancels require.

A command only raises the campaign's `evaluation_wanted`, in the one write that it makes. The clock plans from that
mark, and a run that is decided as a whole clears it (`engine.pipeline.scheduler.completion`). So neither a kill between
two writes nor a run whose slices were dropped can lose the evaluation: the clock plans again what was not done.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from engine.clock import Instant
from engine.domain.campaign import CampaignRecord
from engine.domain.lifecycle import LOOKED_AT, RunState
from engine.domain.work import OF_ENROLLED, OF_EVERYBODY, Run, RunKind
from engine.pipeline.campaigns.live_index import LiveCampaigns
from engine.pipeline.scheduler.drop_run import RunDropper
from engine.pipeline.scheduler.plan_run import RunPlanner


def owing(record: CampaignRecord) -> bool:
    """Return whether the clock has an evaluation to plan or wait for; a paused campaign's waits for its resume.

    An ended campaign that still counts conversions owes those that it missed while its file did not fit.
    """
    return (record.state in LOOKED_AT or record.converting) and record.evaluation_owed


def wanted_runs(record: CampaignRecord, open_runs: Sequence[Run]) -> list[RunKind]:
    """Return the kinds of runs to make so that every owed evaluation is on its way, given the campaign's `open_runs`.

    While the launch run is open, it alone lets users in: anybody else who may enter is evaluated after it.
    """
    current = [run for run in open_runs if run.evaluation >= record.evaluation_wanted]
    enrolled = record.enrolled_owed and not any(run.kind in OF_ENROLLED for run in current)
    intake = record.intake_owed and not any(run.evaluates_all for run in current)
    launching = any(run.kind is RunKind.LAUNCH for run in open_runs)
    intake = intake and not launching
    underway = any(run.kind in OF_EVERYBODY and run.evaluation >= record.everybody_wanted for run in open_runs)
    if intake and record.intake_done < record.everybody_wanted and not underway:
        return [RunKind.RESUME]
    leaving = any(run.kind in OF_EVERYBODY and run.evaluation >= record.left_wanted for run in open_runs)
    if record.left_owed and not launching and not leaving:
        return [RunKind.RESUME]
    return [RunKind.STAYS] * enrolled + [RunKind.PASS] * intake


class OwedEvaluations:
    """Plans owed evaluations.

    After a resume everybody is evaluated again, so the unclaimed slices of earlier runs are dropped first (never those
    of the launch).
    """

    def __init__(
        self,
        live_campaigns: LiveCampaigns,
        run_planner: RunPlanner,
        run_dropper: RunDropper,
    ) -> None:
        self._live_campaigns = live_campaigns
        self._run_planner = run_planner
        self._run_dropper = run_dropper

    def run(self, open_runs: Sequence[Run], now: Instant, *, without: Collection[str] = ()) -> list[Run]:
        """Create the runs that are owed; return those to plan. `without` holds uids of campaigns to leave out."""
        records = {uid: record for uid, record in self._live_campaigns.where(owing).items() if uid not in without}
        if not records:
            return []
        by_campaign: dict[str, list[Run]] = defaultdict(list)
        for run in open_runs:
            by_campaign[run.campaign].append(run)
        made: list[Run] = []
        for uid, record in records.items():
            kinds = wanted_runs(record, by_campaign[uid])
            if not kinds:
                continue
            for run in by_campaign[uid]:
                if run.kind is not RunKind.LAUNCH and run.evaluation < record.everybody_wanted:
                    self._run_dropper.drop(run, record, "resumed")
            made += [self._run_planner.evaluation(record, kind, now) for kind in kinds]
        return [run for run in made if run.state is RunState.PLANNING]
