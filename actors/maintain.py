"""Forget what is over: ended slices and runs."""

from __future__ import annotations

from datetime import timedelta

from actors.registry import actor, application

KEPT = timedelta(days=7)
"""How long ended slices and runs are kept for reports."""


@actor(queue="control", time_limit=timedelta(seconds=60))
def maintain() -> None:
    """Delete slices and runs that ended long ago."""
    stores = application().stores
    stores.slices.forget_ended(KEPT)
    stores.runs.forget_ended(KEPT)
