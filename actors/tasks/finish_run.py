"""Decides a run whose slices are all closed."""

from __future__ import annotations

from datetime import timedelta

from actors.registry import actor, application


@actor("finish_run", queue="control", time_limit=timedelta(seconds=30))
def finish_run(run_id: str) -> None:
    """Decide a run whose slices are all closed."""
    application().run_attempts.finish(run_id)
