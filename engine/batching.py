"""How many users are read and decided at once. Pure.

A batch may take `LONGEST` at most, so that a stop, a pause or a lost lease is noticed in time. Of the candidates that a
policy names, the largest that is expected to keep to it is taken: a larger batch costs less per user.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

LONGEST: Final = timedelta(seconds=1.5)
"""A batch's longest time (`ARCHITECTURE`: a stop flag is checked between batches of at most 1.5 s)."""

WEIGHT: Final = 0.3
"""Weight of the newest measurement in the running mean of seconds per user."""


def choose(candidates: Sequence[int], seconds_per_user: float | None) -> int:
    """The batch size: the largest candidate expected to keep to `LONGEST`, else the smallest.

    Before the first measurement (None) it is the middle one.
    """
    ordered = sorted(candidates)
    if seconds_per_user is None:
        return ordered[len(ordered) // 2]
    fitting = [size for size in ordered if size * seconds_per_user <= LONGEST.total_seconds()]
    return fitting[-1] if fitting else ordered[0]


def blended(before: float | None, users: int, took: timedelta) -> float | None:
    """The running mean of seconds per user after a batch of `users` that took `took`."""
    if users == 0:
        return before
    now = took.total_seconds() / users
    return now if before is None else (1 - WEIGHT) * before + WEIGHT * now
