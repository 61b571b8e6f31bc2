"""The bench of a slow campaign judges waits as its table says."""

from __future__ import annotations

import pytest

from bench import lanes
from bench.lanes_slow import CALM, STEP, bound_of, normal_from, p95


def test_a_normal_median_is_a_fifth_or_50_ms_longer_than_before() -> None:
    assert bound_of([0.1] * 20) == pytest.approx(0.15)
    assert bound_of([1.0] * 20) == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("steps", "normal"),
    [
        ([[0.1]] * CALM, 0.0),
        ([[0.9], [0.9], *([[0.1]] * CALM)], 2 * STEP),
        ([[0.9], *([[0.1]] * (CALM - 1)), [0.9], *([[0.1]] * CALM)], (CALM + 1) * STEP),
        ([[0.9]] * 20, None),
        ([[0.1]] * (CALM - 1), None),
    ],
)
def test_waits_are_normal_from_the_first_of_several_normal_seconds(
    steps: list[list[float]], normal: float | None
) -> None:
    assert normal_from(steps, 0.2) == normal


def test_the_95th_percentile_is_that_of_the_nearest_rank() -> None:
    assert p95([float(number) for number in range(1, 101)]) == 95.0
    assert p95([]) == 0.0


def test_the_part_has_a_goal() -> None:
    assert "slow" in lanes.GOALS
