"""Index a range of users into Elasticsearch: after an import that changed many."""

from __future__ import annotations

from datetime import timedelta

from actors.registry import actor, application


@actor(queue="index", time_limit=timedelta(seconds=120), max_retries=8)
def index_range(workspace: str, first: str, until: str) -> None:
    """Index every user of a workspace with a suffix in [first, until)."""
    indexing = application().indexing
    if indexing is not None:
        indexing.range(workspace, first, until)
