"""When a campaign counts as slow, and when too many of its deliveries fail."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decisions.slow_and_failing import LEAST_ENDED, is_slow, over_budget, percentile, seconds_per_user

LIMIT = timedelta(milliseconds=1)


@given(st.lists(st.floats(0, 10, allow_nan=False), min_size=1, max_size=60), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_the_smallest_value_with_enough_values_below(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    smaller = [value for value in values if value < found]
    assert not smaller or sum(value <= max(smaller) for value in values) < share * len(values) + 1e-9


def test_a_campaign_is_slow_if_its_tail_exceeds_the_limit() -> None:
    assert is_slow([0.002] * 10, LIMIT, 10, slowed=False)
    assert not is_slow([0.0009] * 10, LIMIT, 10, slowed=False)


def test_the_fixed_cost_of_a_small_batch_makes_no_campaign_slow() -> None:
    took = timedelta(milliseconds=12)
    assert not is_slow([seconds_per_user(took, 5)] * 10, LIMIT, 10, slowed=False)
    assert is_slow([seconds_per_user(10 * took, 5)] * 10, LIMIT, 10, slowed=False)
    assert seconds_per_user(timedelta(seconds=1), 500) == 0.002


def test_one_slow_batch_of_twenty_does_not_make_a_campaign_slow() -> None:
    assert not is_slow([0.0001] * 19 + [5.0], LIMIT, 20, slowed=False)


@pytest.mark.parametrize("slowed", [True, False])
def test_with_few_measurements_nothing_changes(slowed: bool) -> None:
    assert is_slow([9.0] * 9, LIMIT, 10, slowed=slowed) is slowed


def test_a_slow_campaign_comes_back_only_when_it_is_well_below_the_limit() -> None:
    assert is_slow([0.0008] * 10, LIMIT, 10, slowed=True)
    assert not is_slow([0.0004] * 10, LIMIT, 10, slowed=True)


def test_only_the_latest_batches_count() -> None:
    assert not is_slow([9.0] * 50 + [0.0001] * 10, LIMIT, 10, slowed=False)


def test_the_error_budget_is_a_share_of_ended_deliveries() -> None:
    assert over_budget(3, 100, 0.02)
    assert not over_budget(2, 100, 0.02)


def test_few_deliveries_never_exceed_the_error_budget() -> None:
    assert not over_budget(LEAST_ENDED - 1, LEAST_ENDED - 1, 0.02)
    assert over_budget(LEAST_ENDED, LEAST_ENDED, 0.02)
