"""Sends the queued deliveries of a slice's range."""

from __future__ import annotations

from datetime import timedelta

from actors.registry import actor, application


@actor("deliver_slice", queue="deliver", time_limit=timedelta(seconds=60))
def deliver_slice(slice_id: str) -> None:
    """Send the deliveries in state `queued` of the users in the slice's key range."""
    application().slice_deliverer.run(slice_id)
