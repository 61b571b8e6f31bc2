"""Cuts a run into slices."""

from __future__ import annotations

from datetime import timedelta

from actors.registry import actor, application


@actor("plan_run", queue="control", time_limit=timedelta(seconds=30))
def plan_run(run_id: str) -> None:
    """Cut a run into slices."""
    application().run_attempts.plan(run_id)
