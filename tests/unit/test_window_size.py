"""How many deliveries one window has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.pipeline.delivering import PATIENCE, SURELY, window_size


@pytest.mark.parametrize(
    ("most", "pace", "size"), [(1, 9_000.0, 1), (50, 9_000.0, 50), (1_000, 1.0, 50), (1_000, 9_000.0, 1_000)]
)
def test_a_window_is_never_larger_than_the_profile_says_and_grows_with_the_pace(
    most: int, pace: float, size: int
) -> None:
    assert window_size(most, pace) == size


@given(st.integers(1, 1_000), st.floats(0, 1e6))
def test_a_window_beyond_the_sure_size_takes_no_longer_than_it_may(most: int, pace: float) -> None:
    size = window_size(most, pace)
    assert 1 <= size <= most
    assert size <= SURELY or size / pace <= PATIENCE
