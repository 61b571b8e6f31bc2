"""Whether a campaign is slow, and whether too much of it fails: judged from measurements. Pure.

A campaign that turns slow leaves the fast lane, and comes back when it has recovered: it is slow when the 95th
percentile of its time per user over so many batches is above the profile's limit, and quick again when that is below
half of it, so that it does not swing between two lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

RECOVERED: Final = 0.5
"""Share of the limit below which a slow campaign is quick again."""

LEAST_ENDED: Final = 50
"""Deliveries that must have ended before their failures say anything."""


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed (nearest rank). Raises on no values."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def is_slow(seconds_per_user: Sequence[float], limit: timedelta, batches: int, *, slowed: bool) -> bool:
    """Whether a campaign belongs into its slow lane, after the latest `batches` measured batches (s per user).

    With fewer measurements nothing changes.
    """
    if len(seconds_per_user) < batches:
        return slowed
    tail = percentile(seconds_per_user[-batches:], 0.95)
    bound = limit.total_seconds() * (RECOVERED if slowed else 1.0)
    return tail > bound


def over_budget(failed: int, ended: int, budget: float) -> bool:
    """Whether so many failures among so many ended deliveries exceed the budget (a share of them)."""
    return ended >= LEAST_ENDED and failed > budget * ended
