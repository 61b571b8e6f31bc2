"""Decides the users of a slice, batch by batch."""

from __future__ import annotations

from datetime import timedelta

from actors.registry import actor, application


@actor("process_slice", queue="fast", time_limit=timedelta(seconds=60))
def process_slice(slice_id: str) -> None:
    """Decide the users of a slice, batch by batch."""
    application().slice_decider.run(slice_id)
