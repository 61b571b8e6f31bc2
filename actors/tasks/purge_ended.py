"""Deletes old records: ended slices and runs, failures of processes that are gone, and ended senders."""

from __future__ import annotations

from datetime import timedelta

from actors.registry import actor, application
from engine.pipeline.delivery.sender_lease import SENDERS

KEPT = timedelta(days=7)
"""How long reports can still read ended slices and runs, and `policy simulate` can replay slices."""


GONE = timedelta(days=1)
"""Age at which the failures of a silent process and ended sender leases are deleted."""


@actor("maintain", queue="control", time_limit=timedelta(seconds=60))
def maintain() -> None:
    """Delete slices and runs that ended long ago, and the records that vanished processes left behind."""
    app = application()
    stores = app.stores
    stores.slices.forget_ended(KEPT)
    stores.runs.forget_ended(KEPT)
    stores.process_failures.forget_older(GONE)
    stores.leases.forget_ended(SENDERS, GONE)
