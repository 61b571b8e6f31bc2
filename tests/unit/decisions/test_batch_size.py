"""The number of users that a worker reads and decides together."""

from __future__ import annotations

from datetime import timedelta

import pytest

from engine.decisions.batch_size import LONGEST, WEIGHT, blended, choose

CANDIDATES = (500, 1_000, 5_000)


def test_without_measurements_the_middle_size_is_chosen() -> None:
    assert choose(CANDIDATES, None) == 1_000
    assert choose((700,), None) == 700


@pytest.mark.parametrize(
    ("seconds", "size"),
    [(0.0, 5_000), (0.000_3, 5_000), (0.000_301, 1_000), (0.001_5, 1_000), (0.001_6, 500), (1, 500)],
)
def test_the_largest_size_within_the_time_limit_is_chosen_else_the_smallest(seconds: float, size: int) -> None:
    assert choose(CANDIDATES, seconds) == size


def test_the_order_in_which_a_policy_names_them_does_not_matter() -> None:
    assert choose((5_000, 500, 1_000), 0.001) == 1_000


def test_a_batch_is_expected_within_the_time_limit_unless_even_the_smallest_is_not() -> None:
    for seconds in (1e-6, 1e-5, 1e-4, 2e-4, 1e-3, 2e-3):
        size = choose(CANDIDATES, seconds)
        assert size * seconds <= LONGEST.total_seconds() or size == min(CANDIDATES)


def test_the_first_measurement_counts_wholly_and_later_ones_by_their_weight() -> None:
    first = blended(None, 1_000, timedelta(seconds=1))
    assert first == 0.001
    assert blended(first, 1_000, timedelta(seconds=2)) == pytest.approx((1 - WEIGHT) * 0.001 + WEIGHT * 0.002)


def test_a_batch_without_users_is_not_measured() -> None:
    assert blended(None, 0, timedelta(seconds=1)) is None
    assert blended(0.5, 0, timedelta(seconds=1)) == 0.5


def test_the_estimate_follows_a_changed_pace() -> None:
    pace: float | None = 0.0001
    for _ in range(20):
        pace = blended(pace, 500, timedelta(seconds=1.5))
    assert choose(CANDIDATES, pace) == 500
