"""The batch tuner under stress: any costs, any noise, changing conditions."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from itertools import pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.decisions.batch_size import LONGEST, LONGEST_HORIZON, MARGIN, TRIALS, Tuner

LIMIT = LONGEST.total_seconds()
CANDIDATES = st.lists(st.integers(50, 10_000), min_size=1, max_size=5, unique=True)
COSTS = st.tuples(st.floats(1e-4, 0.05), st.floats(1e-6, 2e-3), st.floats(0, 1e-7))
"""Fixed seconds, seconds per user, and seconds per user squared: the last one makes a small batch the best one."""

EXAMPLES = 25
"""Each example plays about a thousand batches."""

SPREAD = 0.2
"""Noise between equal batches, as on two shared cores."""


def lasts(cost: tuple[float, float, float], size: int) -> float:
    once, each, squared = cost
    return once + each * size + squared * size * size


def play(
    tuner: Tuner, candidates: list[int], batches: int, cost: tuple[float, float, float], chance: random.Random
) -> Counter[int]:
    chosen: Counter[int] = Counter()
    for _ in range(batches):
        size = tuner.choose("q", candidates)
        chosen[size] += 1
        took = lasts(cost, size) * (1 + SPREAD * chance.random())
        tuner.measured("q", size, size, timedelta(seconds=took))
    return chosen


def good(candidates: list[int], cost: tuple[float, float, float]) -> set[int]:
    """Return the sizes that noise and margin cannot tell from the best of those that surely fit."""
    fitting = [size for size in candidates if lasts(cost, size) * (1 + SPREAD) <= LIMIT] or [min(candidates)]
    best = min(lasts(cost, size) / size for size in fitting)
    return {size for size in candidates if lasts(cost, size) / size <= best * (1 + SPREAD) * (1 + MARGIN) ** 2}


def reachable(candidates: list[int], cost: tuple[float, float, float]) -> bool:
    """Report whether each candidate should fit by the per-user cost of the next smaller one, including noise."""
    ordered = sorted(candidates)
    return all(lasts(cost, below) / below * size * (1 + SPREAD) <= LIMIT for below, size in pairwise(ordered))


@settings(deadline=None, max_examples=EXAMPLES)
@given(CANDIDATES, COSTS, st.integers())
def test_the_tuner_settles_on_the_best_of_noisy_candidates(
    candidates: list[int], cost: tuple[float, float, float], seed: int
) -> None:
    assume(reachable(candidates, cost))
    tuner, chance = Tuner(), random.Random(seed)
    play(tuner, candidates, 600, cost, chance)
    late = play(tuner, candidates, 400, cost, chance)
    assert sum(late[size] for size in good(candidates, cost)) >= 0.85 * 400


@settings(deadline=None, max_examples=EXAMPLES)
@given(CANDIDATES, COSTS, COSTS, st.integers())
def test_the_tuner_finds_the_best_again_after_conditions_changed(
    candidates: list[int], before: tuple[float, float, float], after: tuple[float, float, float], seed: int
) -> None:
    assume(reachable(candidates, after))
    tuner, chance = Tuner(), random.Random(seed)
    play(tuner, candidates, 600, before, chance)
    play(tuner, candidates, 2 * LONGEST_HORIZON, after, chance)
    late = play(tuner, candidates, 400, after, chance)
    assert sum(late[size] for size in good(candidates, after)) >= 0.85 * 400


@settings(deadline=None, max_examples=EXAMPLES)
@given(CANDIDATES, COSTS, st.integers())
def test_a_size_that_proved_too_long_is_left_after_its_trials(
    candidates: list[int], cost: tuple[float, float, float], seed: int
) -> None:
    tuner, chance = Tuner(), random.Random(seed)
    play(tuner, candidates, 600, cost, chance)
    late = play(tuner, candidates, LONGEST_HORIZON, cost, chance)
    for size in sorted(candidates)[1:]:
        if lasts(cost, size) > LIMIT:  # the tuner forgets its measurements now and then at most, and then tries it once
            assert late[size] <= LONGEST_HORIZON // 64 * TRIALS


@settings(deadline=None, max_examples=EXAMPLES)
@given(CANDIDATES, COSTS, st.floats(1e-6, 1e-2), st.integers())
def test_no_choice_is_expected_to_take_longer_than_the_longest_unless_it_is_the_smallest(
    candidates: list[int], cost: tuple[float, float, float], pace: float, seed: int
) -> None:
    tuner, chance = Tuner(), random.Random(seed)
    for _ in range(300):
        size = tuner.choose("q", candidates, pace)
        known = {point.size: point.tail for point in tuner.evidence("q") if point.tail is not None}
        if size != min(candidates):
            assert size * pace <= LIMIT
            nearest = max((other for other in known if other <= size), default=min(known))
            assert size * known[nearest] <= LIMIT
        took = lasts(cost, size) * (1 + SPREAD * chance.random())
        tuner.measured("q", size, size, timedelta(seconds=took))


@settings(deadline=None, max_examples=EXAMPLES)
@given(CANDIDATES, st.floats(1e-6, 1e-4), st.integers())
def test_every_candidate_that_fits_is_tried_again_and_none_takes_the_turns_of_the_best(
    candidates: list[int], each: float, seed: int
) -> None:
    tuner, chance = Tuner(), random.Random(seed)
    cost = (1e-4, each, 0.0)
    play(tuner, candidates, 4 * LONGEST_HORIZON, cost, chance)
    late = play(tuner, candidates, LONGEST_HORIZON + TRIALS * len(candidates), cost, chance)
    assert set(late) == set(candidates)
    assert min(late.values()) >= TRIALS
    assert max(late.values()) >= 0.3 * LONGEST_HORIZON


@given(
    st.lists(st.tuples(st.integers(0, 6_000), st.floats(0, 30), st.booleans()), max_size=200),
    CANDIDATES,
)
def test_any_measurements_yield_a_candidate_and_equal_calls_yield_equal_answers(
    steps: list[tuple[int, float, bool]], candidates: list[int]
) -> None:
    twins = (Tuner(), Tuner())
    for users, seconds, told in steps:
        sizes = {twin.choose("q", candidates) for twin in twins}
        assert len(sizes) == 1
        assert sizes <= set(candidates)
        if told:
            for twin in twins:
                twin.measured("q", next(iter(sizes)), min(users, next(iter(sizes))), timedelta(seconds=seconds))
