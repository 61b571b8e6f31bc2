"""Judge from measurements whether a campaign is slow, and whether too many of its deliveries fail. Pure.

A campaign that becomes slow leaves the fast lane and returns when it has recovered. It is slow when the 95th percentile
of its time per user over so many batches is above the profile's limit. It is quick again when that is below half of the
limit, so that it does not swing between two lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

RECOVERED: Final = 0.5
"""Share of the limit below which a slow campaign is quick again."""

LEAST_ENDED: Final = 50
"""Deliveries that must have ended before their failure rate counts."""

RECENT: Final = 200
"""Latest deliveries of a campaign in one process by which a burst of failures is judged."""

BURST: Final = 0.5
"""Share of the latest deliveries that must fail for a burst; a larger error budget replaces it."""

WHOLE: Final = 100
"""Users that a batch counts as having, at least: the fixed cost of a small one (10 ms) says nothing of its users."""


def seconds_per_user(took: timedelta, users: int) -> float:
    """Return the time per user of a batch, as `is_slow` judges it; smaller batches count as one of `WHOLE` users."""
    return took.total_seconds() / max(WHOLE, users)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of them do not exceed (nearest rank). Raises on no values."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def is_slow(seconds_per_user: Sequence[float], limit: timedelta, batches: int, *, slowed: bool) -> bool:
    """Whether a campaign belongs in its slow lane, after the latest `batches` measured batches (s per user).

    With fewer measurements the answer stays `slowed`.
    """
    if len(seconds_per_user) < batches:
        return slowed
    tail = percentile(seconds_per_user[-batches:], 0.95)
    bound = limit.total_seconds() * (RECOVERED if slowed else 1.0)
    return tail > bound


def over_budget(failed: int, ended: int, budget: float) -> bool:
    """Whether `failed` of `ended` deliveries exceed the budget (a share of them)."""
    return ended >= LEAST_ENDED and failed > budget * ended


def is_burst(failed: int, ended: int, budget: float) -> bool:
    """Whether `failed` of the latest `ended` deliveries mean that nearly all others would fail as well."""
    return ended >= LEAST_ENDED and failed > max(BURST, budget) * ended
