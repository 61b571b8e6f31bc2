"""Drop the rest of a run: its unclaimed slices now, the run itself with its last open slice."""

from __future__ import annotations

from engine.domain.campaign import CampaignRecord
from engine.domain.lifecycle import RunState
from engine.domain.work import Run
from engine.pipeline.ports.work import RunStore, SliceStore
from engine.pipeline.scheduler.completion import RunCompletion
from engine.telemetry.events import emit


class RunDropper:
    """Drops runs whose users another run evaluates."""

    def __init__(self, runs: RunStore, slices: SliceStore, run_completion: RunCompletion) -> None:
        self._runs = runs
        self._slices = slices
        self._run_completion = run_completion

    def drop(self, run: Run, record: CampaignRecord, reason: str) -> None:
        """Drop the run's unclaimed slices; holders finish theirs. Safe to repeat."""
        self._slices.drop_unclaimed(run.id)
        if self._slices.has_open(run.id):
            return  # it ends as dropped when the holders of the other slices have closed them
        if run.state is RunState.RUNNING:
            self._run_completion.run(run.id)
        elif self._runs.move(run, RunState.DROPPED):
            labels = {"workspace": run.workspace, "campaign": record.name, "campaign_uid": run.campaign}
            emit("run.dropped", **labels, run=run.id, reason=reason)
