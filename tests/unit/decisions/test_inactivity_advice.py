"""The advised inactivity window: the 99th percentile of quiet stretches that ended, if there are enough of them."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from engine.decisions.inactivity_advice import ENOUGH, SHARE, advised

NO_WAIT = timedelta(0)


def test_few_stretches_advise_nothing() -> None:
    assert advised({3: ENOUGH - 1}, NO_WAIT) is None
    assert advised({}, NO_WAIT) is None


def test_the_advice_is_the_99th_percentile_in_whole_days() -> None:
    assert advised({1: 900, 5: 90, 60: 10}, NO_WAIT) == timedelta(days=5)
    assert advised({1: 900, 5: 89, 60: 11}, NO_WAIT) == timedelta(days=60)


def test_the_advice_stays_above_the_longest_wait() -> None:
    assert advised({1: 1_000}, timedelta(days=14)) == timedelta(days=15)


def test_the_advice_is_at_least_a_day() -> None:
    assert advised({0: 1_000}, NO_WAIT) == timedelta(days=1)


@given(st.dictionaries(st.integers(0, 400), st.integers(1, 500), min_size=1))
def test_at_most_one_in_a_hundred_would_have_been_cut_short(stretches: dict[int, int]) -> None:
    window = advised(stretches, NO_WAIT)
    count = sum(stretches.values())
    if count < ENOUGH:
        assert window is None
        return
    assert window is not None
    beyond = sum(n for days, n in stretches.items() if timedelta(days=days) > window)
    assert beyond <= (1 - SHARE) * count + 1e-9
    shorter = window - timedelta(days=1)
    if shorter >= timedelta(days=1):
        assert sum(n for days, n in stretches.items() if timedelta(days=days) > shorter) > (1 - SHARE) * count - 1
