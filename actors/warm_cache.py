"""Load the user cache of a workspace."""

from __future__ import annotations

from datetime import timedelta

from actors.registry import actor, application


@actor("warm_cache", queue="index", time_limit=timedelta(minutes=10), max_retries=1)
def warm_cache(workspace: str) -> None:
    """Load every bucket of a workspace that is absent; whoever reads meanwhile loads what it needs itself."""
    cache = application().cached_users
    if cache is not None:
        cache.warm(workspace)
