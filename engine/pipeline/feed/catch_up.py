"""Wait until the feed has handled everything up to a position."""

from __future__ import annotations

import time
from typing import Final

from engine.clock import Clock
from engine.pipeline.ports.feed import FeedStore

POLL: Final = 0.005
"""Seconds between two checks of the feed's position; one costs a GET and a read by `_id`."""


def caught_up(feed: FeedStore, clock: Clock, position: int, patience: float) -> bool:
    """Wait up to `patience` seconds until the feed reaches `position`; return whether it does.

    Call the feed first, because it may be waiting for a change.
    """
    if feed.position() >= position:
        return True
    feed.call()
    until = clock.monotonic() + patience
    while feed.position() < position:
        if clock.monotonic() > until:
            return False
        time.sleep(POLL)
    return True
