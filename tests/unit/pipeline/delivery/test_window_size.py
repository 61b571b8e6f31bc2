"""Window size: the deliveries that begin within half a second, by a pace that one burst hardly moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.pipeline.delivery.deliver_slice import (
    AHEAD,
    FEWEST,
    LEAST_READ,
    READ_AHEAD,
    UNKNOWN,
    read_size,
    window_size,
)
from engine.pipeline.delivery.send_window import FASTER, paced


@pytest.mark.parametrize(
    ("most", "pace", "size"),
    [(1_000, UNKNOWN, 12), (1_000, 0.1, FEWEST), (1_000, 500.0, 250), (1_000, 50_000.0, 1_000), (1, 500.0, 1)],
)
def test_a_window_lasts_half_a_second(most: int, pace: float, size: int) -> None:
    assert window_size(most, pace) == size


@given(st.integers(1, 1_000), st.floats(0.01, 1e6))
def test_a_window_never_exceeds_its_longest_time_or_largest_size(most: int, pace: float) -> None:
    size = window_size(most, pace)
    assert 1 <= size <= most
    assert size <= FEWEST or size / pace <= AHEAD


def test_a_read_covers_two_turns_of_sending() -> None:
    assert (read_size(1.0), read_size(40.0), read_size(5_000.0)) == (LEAST_READ, 400, READ_AHEAD)


def test_the_pace_follows_the_provider_and_a_burst_raises_it_little() -> None:
    assert paced(100.0, 1_000, 0.01) == 100.0 * (1 + FASTER) / 2
    assert paced(100.0, 50, 0.5) == 100.0
    assert paced(100.0, 0, 5.0) == pytest.approx(50.1)


def test_the_pace_reaches_the_providers_within_a_few_windows() -> None:
    pace = UNKNOWN
    for _ in range(12):
        size = window_size(1_000, pace)
        pace = paced(pace, size, size / 1_500)
    assert 1_200 < pace < 1_600
