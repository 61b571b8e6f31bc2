"""Finish runs and campaigns: a run when it is planned and has no open slice, a campaign when its counts add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from engine.clock import Clock, Instant
from engine.domain.campaign import CampaignRecord
from engine.domain.lifecycle import CampaignState, RunState, SliceState
from engine.domain.work import OF_ENROLLED, OF_EVERYBODY, Run, RunKind
from engine.failpoints import passage
from engine.pipeline.evaluation.enrol import MEASURED, READ_US, TIMED
from engine.pipeline.ports.campaigns import CampaignStore
from engine.pipeline.ports.enrolments import EnrolmentStore
from engine.pipeline.ports.messaging import Wakeup
from engine.pipeline.ports.work import RateStore, RunStore, SliceStore
from engine.policy.models import Overlap
from engine.telemetry.events import emit

PASSING: Final = frozenset({RunKind.LAUNCH, RunKind.PASS, RunKind.RESUME, RunKind.RECONCILE})
"""Runs that evaluate every user whom time alone has let into the audience up to their `as_of`."""


class RunCompletion:
    """Ends runs for the actor `finish_run`, and finishes campaigns."""

    def __init__(
        self,
        *,
        runs: RunStore,
        slices: SliceStore,
        campaigns: CampaignStore,
        enrolments: EnrolmentStore,
        wakeup: Wakeup,
        clock: Clock,
        name_of: Callable[[str], str],
        rates: RateStore,
        converts_until: Callable[[CampaignRecord], Instant | None],
    ) -> None:
        """`converts_until` returns until when a finishing campaign counts conversions (`ConversionDeadlines.until`)."""
        self._rates = rates
        self._converts_until = converts_until
        self._runs = runs
        self._slices = slices
        self._campaigns = campaigns
        self._enrolments = enrolments
        self._wakeup = wakeup
        self._clock = clock
        self._name_of = name_of

    def run(self, run_id: str) -> bool:
        """End a run whose slices are all closed. Safe to call twice, early, or for a run that is gone.

        The run becomes `decided`, and the campaign notes the evaluation that it carried out. If one of its slices was
        dropped, the run becomes `dropped` instead.
        """
        run = self._runs.get(run_id)
        if run is None or run.state is not RunState.RUNNING or self._slices.has_open(run_id):
            return False
        pieces = self._slices.of_run(run_id)
        results: Counter[str] = Counter()
        for slice_ in pieces:
            results.update(slice_.results)
        dropped = sum(slice_.state is SliceState.DROPPED for slice_ in pieces)
        if dropped:
            return self._drop(run, results, dropped)
        if run.kind in PASSING:
            self._campaigns.crossed([run.campaign], run.as_of, reconciled=run.kind is not RunKind.PASS)
        self._campaigns.evaluated(
            run.campaign,
            run.evaluation,
            enrolled=run.kind in OF_ENROLLED,
            intake=run.evaluates_all,
            left=run.kind in OF_EVERYBODY,
        )
        if not self._runs.move(run, RunState.DECIDED, results):
            return False
        passage("run.decided")
        path = pieces[0].path if pieces else None
        if path is not None and results[READ_US]:
            self._rates.measured(path, results[TIMED], timedelta(microseconds=results[READ_US]))
        emit(
            "run.decided",
            workspace=run.workspace,
            campaign=self._name_of(run.campaign),
            campaign_uid=run.campaign,
            run=run.id,
            kind=run.kind.value,
            as_of=run.as_of,
            slices=len(pieces),
            **{name: count for name, count in results.items() if name not in MEASURED},
        )
        self._wakeup.ring()
        return True

    def _drop(self, run: Run, results: Counter[str], dropped: int) -> bool:
        """End a run of which `dropped` slices were dropped; keep the other results, mark no evaluation as done."""
        if not self._runs.move(run, RunState.DROPPED, results):
            return False
        emit(
            "run.dropped",
            workspace=run.workspace,
            campaign=self._name_of(run.campaign),
            campaign_uid=run.campaign,
            run=run.id,
            reason=self._drop_reason(run),
            slices=dropped,
        )
        self._wakeup.ring()
        return True

    def _drop_reason(self, run: Run) -> str:
        """Return why a run was dropped: a resume evaluates everybody anew, or the next pass took over (`newest`)."""
        record = self._campaigns.get(run.campaign)
        resumed = record is None or run.evaluation < record.everybody_wanted
        return "resumed" if resumed else Overlap.NEWEST.value

    def campaign(self, record: CampaignRecord) -> bool:
        """Finish a one-off or draining campaign when it has no open work; return whether it finished."""
        one_off_live = record.state is CampaignState.LIVE and record.kind == "one_off"
        if not one_off_live and record.state is not CampaignState.DRAINING:
            return False
        if record.evaluation_owed or self._runs.undecided([record.uid]) or not self._runs.launch_decided(record.uid):
            return False
        if self._enrolments.has_open(record.uid):
            return False
        until, end = self._converts_until(record), self._clock.campaign_now()
        ended = {"finished_at": end, "converting_until": until, "stuck_by": None}
        if not self._campaigns.move(record, CampaignState.FINISHED, exactly=True, **ended):
            return False
        passage("campaign.finished")
        # If `until` is set, time may bring conversions: due enrolments are evaluated for those alone.
        if until is None:
            self._enrolments.clear_due(record.uid)
        emit("campaign.finished", workspace=record.workspace, campaign=record.name, campaign_uid=record.uid)
        return True
