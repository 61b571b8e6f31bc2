"""Loads the user cache of a workspace."""

from __future__ import annotations

from datetime import timedelta

from actors.registry import actor, application
from engine.query_metrics import working_on


@actor("warm_cache", queue="index", time_limit=timedelta(minutes=10), max_retries=1)
def warm_cache(workspace: str) -> None:
    """Load every absent bucket of a workspace; readers load the buckets they need themselves meanwhile."""
    app = application()
    if app.cached_users is not None:
        with working_on("", "", app.bulk_gate):
            app.cached_users.warm(workspace)
