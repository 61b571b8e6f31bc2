"""Forget what is over: ended slices and runs, and senders that are gone."""

from __future__ import annotations

from datetime import timedelta

from actors.registry import actor, application
from engine.pipeline.sender import SENDERS

KEPT = timedelta(days=7)
"""How long ended slices and runs are kept for reports."""


GONE = timedelta(days=1)
"""After this long without a word the process of a failure counts as gone."""


@actor("maintain", queue="control", time_limit=timedelta(seconds=60))
def maintain() -> None:
    """Delete slices and runs that ended long ago, and what processes that are gone have left."""
    app = application()
    stores = app.stores
    stores.slices.forget_ended(KEPT)
    stores.runs.forget_ended(KEPT)
    stores.process_failures.forget_older(GONE)
    stores.leases.forget_ended(SENDERS, GONE)
