"""Plan and close runs and record failures: a failing run rests, and its campaign shows the reason."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from engine.failure_text import reason_of
from engine.pipeline.ports.work import RunStore
from engine.pipeline.scheduler.completion import RunCompletion
from engine.pipeline.scheduler.plan_run import RunPlanner
from engine.telemetry.events import emit

LONGEST_REST: Final = 15.0
"""Longest rest of a run that keeps failing, in seconds: it goes on soon after a person has fixed the cause."""


class RunAttempts:
    """Plans and ends runs for the actors `plan_run` and `finish_run`.

    It records an exception with the run, and the clock enqueues the run again after a back-off. It raises `outages`: no
    run is to blame for them.
    """

    def __init__(
        self,
        run_planner: RunPlanner,
        run_completion: RunCompletion,
        runs: RunStore,
        name_of: Callable[[str], str],
        outages: tuple[type[BaseException], ...],
    ) -> None:
        self._run_planner = run_planner
        self._run_completion = run_completion
        self._runs = runs
        self._name_of = name_of
        self._outages = outages

    def plan(self, run_id: str) -> None:
        """Cut a run into slices, or close it if it has none. Safe to call twice, late, or for a missing run."""
        self._attempt(run_id, lambda: self._run_planner.run(run_id) and self._run_completion.run(run_id))

    def finish(self, run_id: str) -> None:
        """Decide a run whose slices are all closed. Safe to call twice, early, or for a missing run."""
        self._attempt(run_id, lambda: self._run_completion.run(run_id))

    def _attempt(self, run_id: str, do: Callable[[], object]) -> None:
        try:
            do()
        except self._outages:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the run records it and is tried again
            self._failed(run_id, error)

    def _failed(self, run_id: str, error: Exception) -> None:
        run = self._runs.get(run_id)
        if run is None:
            return
        before = 0 if run.failure is None else run.failure.count
        self._runs.failed(run, reason_of(error), timedelta(seconds=min(LONGEST_REST, 2.0**before)))
        emit(
            "run.failed",
            workspace=run.workspace,
            campaign=self._name_of(run.campaign),
            campaign_uid=run.campaign,
            run=run.id,
            kind=run.kind.value,
            as_of=run.as_of,
            reason=type(error).__name__,
            error=error,
        )
