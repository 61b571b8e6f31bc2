"""Wait for the feed: until it has handled everything up to some position."""

from __future__ import annotations

import time
from typing import Final

from engine.clock import Clock
from engine.pipeline.sources import FeedStore

POLL: Final = 0.005
"""Seconds between two questions where the feed is; one is a GET and a read by `_id`."""


def caught_up(feed: FeedStore, clock: Clock, wanted: int, patience: float) -> bool:
    """Whether the feed comes to position `wanted` within `patience` seconds. It is called, for it may be at rest."""
    if feed.position() >= wanted:
        return True
    feed.call()
    until = clock.monotonic() + patience
    while feed.position() < wanted:
        if clock.monotonic() > until:
            return False
        time.sleep(POLL)
    return True
