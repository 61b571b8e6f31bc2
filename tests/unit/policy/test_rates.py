"""`rates:` of a channel: the lowest limit holds, and a warm-up has steps by day."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from engine.policy.models import Rate


def at(day: str, time: str = "12:00:00") -> int:
    return int(datetime.fromisoformat(f"{day}T{time}").replace(tzinfo=UTC).timestamp() * 1000)


def test_the_lowest_limit_holds() -> None:
    assert Rate.model_validate({"per_second": 10.0}).per_second_at(0) == 10
    assert Rate.model_validate({"per_second": 10.0, "per_hour": 3600.0}).per_second_at(0) == 1
    assert Rate.model_validate({"per_second": 0.5, "per_hour": 3600.0}).per_second_at(0) == 0.5


def test_a_warm_up_raises_the_limit_by_the_day_and_then_ends() -> None:
    warm_up = {"since": "2026-12-01", "per_hour": [36.0, 360.0]}
    rate = Rate.model_validate({"per_second": 5.0, "warm_up": warm_up})
    days = ["2026-11-30", "2026-12-01", "2026-12-02", "2026-12-03"]
    assert [rate.per_second_at(at(day)) for day in days] == [0.01, 0.01, 0.1, 5]
    assert rate.per_second_at(at("2026-12-01", "23:59:59")) == 0.01
    assert Rate.model_validate({"warm_up": warm_up}).per_second_at(at("2026-12-03")) is None


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"per_second": 0.0},
        {"per_hour": -1.0},
        {"warm_up": {"since": "soon", "per_hour": [1.0]}},
        {"warm_up": {"since": 7, "per_hour": [1.0]}},
        {"warm_up": {"since": "2026-12-01", "per_hour": []}},
        {"warm_up": {"since": "2026-12-01", "per_hour": [0.0]}},
    ],
)
def test_a_rate_that_limits_nothing_or_everything_is_refused(given: dict[str, object]) -> None:
    with pytest.raises((ValidationError, ValueError)):
        Rate.model_validate(given)
