"""Evaluates changed users."""

from __future__ import annotations

from datetime import timedelta

from actors.registry import actor, application


@actor("look_at_users", queue="looks", time_limit=timedelta(seconds=60))
def look_at_users() -> None:
    """Evaluate changed users until none is waiting or this actor's time is up."""
    application().rechecker.run()
