"""The gate's limit: halved when the store is slow, raised step by step while it is quick and used."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decisions.gate import SMALLEST, STEP, adjusted, congestion, gated_size, share
from engine.domain.gate import GateState, Gauge, Hold, Override, limit_in_force
from engine.policy.models import Gate

RULE = Gate(latency=timedelta(milliseconds=20), lag=timedelta(seconds=10), queue=5, at_least=0.05)
QUICK = Gauge(0.001, 0.002, 0.0, 0)
SLOW = replace(QUICK, p95=0.021)
NOW = 1_000

limits = st.none() | st.floats(0.05, 64)
gauges = st.builds(
    Gauge,
    st.none() | st.floats(0, 1),
    st.none() | st.floats(0, 1),
    st.none() | st.floats(0, 100),
    st.none() | st.integers(0, 100),
)


@pytest.mark.parametrize(
    ("gauge", "said"),
    [
        (QUICK, None),
        (Gauge(), None),
        (SLOW, "the probe's p95 is 21 ms, above 20 ms"),
        (replace(QUICK, lag=11.0), "a secondary is 11 s behind, more than 10 s"),
        (replace(QUICK, queue=6), "6 operations wait in the server's queue, more than 5"),
        (Gauge(0.02, 0.02, 10.0, 5), None),
    ],
)
def test_a_slow_store_is_named_with_measurement_and_limit(gauge: Gauge, said: str | None) -> None:
    assert congestion(gauge, RULE) == said


def test_an_open_gate_begins_at_half_of_what_was_used() -> None:
    after = adjusted(GateState(), SLOW, RULE, used=3.0, wanted=8, now=NOW)
    assert after == GateState(1.5, NOW, "the probe's p95 is 21 ms, above 20 ms", 3.0)
    assert adjusted(GateState(), SLOW, RULE, used=0.0, wanted=8, now=NOW).limit == 0.5


def test_a_limit_is_halved_while_the_store_is_slow_down_to_the_least() -> None:
    state = GateState(1.0)
    seen = []
    for _ in range(6):
        state = adjusted(state, SLOW, RULE, used=state.limit or 0.0, wanted=8, now=NOW)
        seen.append(state.limit)
    assert seen == [0.5, 0.25, 0.125, 0.0625, 0.05, 0.05]


def test_a_used_limit_rises_while_the_store_is_quick() -> None:
    assert adjusted(GateState(0.1), QUICK, RULE, used=0.1, wanted=8, now=NOW).limit == pytest.approx(0.1 + STEP)
    assert adjusted(GateState(2.0), QUICK, RULE, used=2.0, wanted=8, now=NOW).limit == pytest.approx(2.1)


def test_after_a_short_stall_the_limit_is_soon_where_it_stood() -> None:
    state = GateState(2.0)
    for _ in range(2):
        state = adjusted(state, SLOW, RULE, used=state.limit or 0.0, wanted=8, now=NOW)
    assert state.limit == 0.5
    seconds = 0
    while (state.limit or 0.0) < 1.0:
        state = adjusted(state, QUICK, RULE, used=state.limit or 0.0, wanted=8, now=NOW)
        seconds += 1
    assert seconds <= 4


def test_a_limit_that_is_too_high_again_and_again_is_approached_slowly() -> None:
    """A store that bears 1.0 at most: the limit spends most of its time below, and near it."""
    state, seen = GateState(8.0), []
    for _ in range(200):
        gauge = SLOW if (state.limit or 9.0) > 1.0 else QUICK
        state = adjusted(state, gauge, RULE, used=state.limit or 0.0, wanted=16, now=NOW)
        seen.append(state.limit or 9.0)
    late = seen[100:]
    assert sum(limit > 1.0 for limit in late) <= 25
    assert sum(late) / len(late) > 0.7


def test_an_unused_limit_stays() -> None:
    state = GateState(2.0)
    assert adjusted(state, QUICK, RULE, used=0.9, wanted=8, now=NOW) is state


def test_a_limit_that_lets_everybody_work_is_no_limit() -> None:
    assert adjusted(GateState(3.9), QUICK, RULE, used=3.9, wanted=4, now=NOW).limit is None


def test_without_bulk_work_nothing_changes_however_slow_the_store_is() -> None:
    assert adjusted(GateState(), SLOW, RULE, used=0.0, wanted=0, now=NOW) == GateState()


@given(limits, gauges, st.floats(0, 64), st.integers(1, 64))
def test_the_limit_stays_within_its_bounds(limit: float | None, gauge: Gauge, used: float, wanted: int) -> None:
    after = adjusted(GateState(limit), gauge, RULE, used=used, wanted=wanted, now=NOW).limit
    assert after is None or after >= RULE.at_least
    if congestion(gauge, RULE) is not None:
        assert after is not None
        assert limit is None or after <= max(limit, RULE.at_least)
    elif limit is not None:
        assert after is None or after >= limit


@given(st.floats(0.01, 64), st.lists(st.integers(0, 16), min_size=1, max_size=8))
def test_the_shares_of_those_who_want_to_work_add_up_to_the_limit(limit: float, wanted: list[int]) -> None:
    shares = [share(limit, one, sum(wanted)) for one in wanted if one]
    assert sum(one for one in shares if one is not None) <= limit + 1e-9
    assert not shares or sum(one for one in shares if one is not None) == pytest.approx(limit)


def test_without_a_limit_nobody_has_a_share_to_keep() -> None:
    assert share(None, 3, 5) is None


@given(st.integers(1, 5_000), st.none() | st.floats(0, 1), st.floats(0.001, 1))
def test_a_gated_size_is_never_larger_and_never_useless(size: int, each: float | None, quantum: float) -> None:
    gated = gated_size(size, each, quantum)
    assert min(size, SMALLEST) <= gated <= size


def test_a_gated_size_lasts_about_the_quantum() -> None:
    assert gated_size(5_000, 0.0001, 0.01) == 100


@pytest.mark.parametrize(
    ("override", "limit"),
    [
        (None, 0.5),
        (Override(Hold.OPEN, 9, ""), None),
        (Override(Hold.CLOSED, 9, ""), 0.0),
        (Override(Hold.LIMIT, 9, "", 2.0), 2.0),
    ],
)
def test_a_persons_setting_comes_before_the_automatic_limit(override: Override | None, limit: float | None) -> None:
    assert limit_in_force(GateState(0.5), override) == limit
