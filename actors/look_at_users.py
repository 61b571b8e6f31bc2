"""Look at users who changed."""

from __future__ import annotations

from datetime import timedelta

from actors.registry import actor, application


@actor("look_at_users", queue="looks", time_limit=timedelta(seconds=60))
def look_at_users() -> None:
    """Look at users who changed, as long as some wait or a message may last."""
    application().looking.run()
