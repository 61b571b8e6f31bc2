"""The tuner tries the sizes that a policy names, keeps the size with the best tail, and retries others now and then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest

from engine.decisions.batch_size import FIRST_HORIZON, LONGEST, LONGEST_HORIZON, TRIALS, WINDOW, Tuner, quantile

SIZES = (500, 1_000, 5_000)
Cost = Callable[[int], float]


def play(tuner: Tuner, batches: int, seconds: Cost, query: str = "users.read_range") -> Counter[int]:
    """Feed full batches to the tuner; `seconds` gives the duration of a batch of one size."""
    chosen: Counter[int] = Counter()
    for _ in range(batches):
        size = tuner.choose(query, SIZES)
        chosen[size] += 1
        tuner.measured(query, size, size, timedelta(seconds=seconds(size)))
    return chosen


def fixed(at_once: float, each: float) -> Cost:
    return lambda size: at_once + each * size


def test_without_measurements_the_smallest_size_is_chosen() -> None:
    assert Tuner().choose("users.read_range", (5_000, 500, 1_000)) == 500


def test_each_candidate_is_tried_and_then_the_best_is_kept() -> None:
    tuner = Tuner()
    assert play(tuner, 3 * TRIALS, fixed(0.005, 1e-5)) == dict.fromkeys(SIZES, TRIALS)
    assert play(tuner, 20, fixed(0.005, 1e-5)) == {5_000: 20}


def test_a_smaller_size_wins_if_a_large_batch_costs_more_per_user() -> None:
    tuner = Tuner()
    play(tuner, 3 * TRIALS, lambda size: size * (1e-5 if size <= 1_000 else 5e-5))
    assert tuner.choose("users.read_range", SIZES) == 1_000


def test_a_candidate_expected_to_take_too_long_is_not_tried() -> None:
    tuner = Tuner()
    assert set(play(tuner, 500, fixed(0, 0.001))) == {500, 1_000}


def test_a_slow_campaign_among_quick_ones_gets_a_size_that_it_can_finish() -> None:
    tuner = Tuner()
    play(tuner, 50, fixed(0.005, 1e-5))
    assert tuner.choose("users.read_range", SIZES, pace=0.002) == 500
    assert tuner.choose("users.read_range", SIZES, pace=0.001) == 1_000
    assert tuner.choose("users.read_range", SIZES) == 5_000


def test_a_slow_campaign_gets_the_best_size_that_it_can_finish() -> None:
    tuner = Tuner()
    play(tuner, 50, lambda size: size * {500: 1e-5, 1_000: 2e-5, 5_000: 5e-6}[size])
    assert tuner.choose("users.read_range", SIZES) == 5_000
    assert tuner.choose("users.read_range", SIZES, pace=0.001) == 500


def test_a_slow_campaign_does_not_change_the_size_of_quick_ones() -> None:
    tuner, cost = Tuner(), fixed(0.005, 1e-5)
    play(tuner, 2 * LONGEST_HORIZON, cost)
    for _ in range(50):
        assert tuner.choose("users.read_range", SIZES, pace=0.01) == 500
        play(tuner, 1, cost)
    assert play(tuner, 100, cost)[5_000] >= 100 - 2 * TRIALS


def test_the_smallest_size_is_used_if_none_fits() -> None:
    assert set(play(Tuner(), 200, fixed(0, 1.0))) == {500}


def test_a_size_is_left_after_two_long_batches_and_not_after_one() -> None:
    tuner = Tuner()
    play(tuner, 3 * TRIALS + WINDOW, fixed(0.005, 1e-5))
    slow = LONGEST * 2
    tuner.measured("users.read_range", 5_000, 5_000, slow)
    assert tuner.choose("users.read_range", SIZES) == 5_000
    tuner.measured("users.read_range", 5_000, 5_000, slow)
    assert tuner.choose("users.read_range", SIZES) != 5_000


def test_a_size_that_was_too_slow_comes_back_when_the_database_has_recovered() -> None:
    tuner = Tuner()
    play(tuner, 100, fixed(0.005, 1e-5))
    assert set(play(tuner, 400, fixed(0.1, 2e-3))) <= {500, 5_000, 1_000}
    assert tuner.choose("users.read_range", SIZES) == 500
    play(tuner, LONGEST_HORIZON + 3 * TRIALS, fixed(0.005, 1e-5))
    assert tuner.choose("users.read_range", SIZES) == 5_000


def test_the_share_of_tries_decays_but_never_ends() -> None:
    tuner, cost = Tuner(), fixed(0.005, 1e-5)
    early = play(tuner, FIRST_HORIZON, cost)
    play(tuner, 4 * LONGEST_HORIZON, cost)
    late = play(tuner, LONGEST_HORIZON, cost)
    assert early[500] == early[1_000] == TRIALS
    assert 0 < late[500] <= TRIALS + 1
    assert 0 < late[1_000] <= TRIALS + 1


def test_the_size_is_kept_while_others_are_equal_within_noise() -> None:
    tuner = Tuner()
    play(tuner, 3 * TRIALS + 1, fixed(0, 1e-5))
    before = play(tuner, 20, lambda size: size * (1.05e-5 if size == 5_000 else 1e-5))
    assert before == {5_000: 20}


def test_the_short_last_batch_of_a_range_is_no_evidence_for_its_size() -> None:
    tuner = Tuner()
    play(tuner, 3 * TRIALS, fixed(0.005, 1e-5))
    for _ in range(WINDOW):
        tuner.measured("users.read_range", 5_000, 3, timedelta(seconds=0.01))
    (large,) = [point for point in tuner.evidence("users.read_range") if point.size == 5_000]
    assert len(large.recent) == TRIALS
    assert large.batches == TRIALS + WINDOW
    assert tuner.choose("users.read_range", SIZES) == 5_000


def test_a_short_batch_that_took_too_long_counts_as_if_it_had_been_full() -> None:
    tuner = Tuner()
    play(tuner, 3 * TRIALS, fixed(0.005, 1e-5))
    tuner.measured("users.read_range", 5_000, 3, timedelta(seconds=5))
    (large,) = [point for point in tuner.evidence("users.read_range") if point.size == 5_000]
    assert large.recent[-1] == pytest.approx(0.001)


def test_ranges_shorter_than_every_size_need_no_trial() -> None:
    tuner = Tuner()
    for _ in range(100):
        size = tuner.choose("enrolments.due", SIZES)
        tuner.measured("enrolments.due", size, 7, timedelta(seconds=0.01))
    assert tuner.choose("enrolments.due", SIZES) in SIZES


def test_queries_are_tuned_independently() -> None:
    tuner = Tuner()
    play(tuner, 50, fixed(0.005, 1e-5), "cache.read")
    assert set(play(tuner, 50, fixed(0, 0.002), "users.read_range")) == {500}
    assert tuner.choose("cache.read", SIZES) == 5_000
    assert tuner.queries() == ["cache.read", "users.read_range"]


def test_two_profiles_with_other_candidates_do_not_disturb_each_other() -> None:
    tuner, seen = Tuner(), Counter[int]()
    for turn in range(600):
        size = tuner.choose("users.read_range", (500, 1_000) if turn % 2 else (1_000, 5_000))
        seen[size] += turn > 300
        tuner.measured("users.read_range", size, size, timedelta(seconds=0.005 + 1e-5 * size))
    assert seen[500] < 30 < 100 < min(seen[1_000], seen[5_000])


def test_evidence_holds_batches_users_median_tail_and_the_choice() -> None:
    tuner = Tuner()
    play(tuner, 3 * TRIALS + 4, fixed(0.005, 1e-5))
    small, _, large = tuner.evidence("users.read_range")
    assert (small.size, small.batches, small.users, small.chosen) == (500, TRIALS, 500 * TRIALS, False)
    assert (large.size, large.batches, large.chosen) == (5_000, TRIALS + 4, True)
    assert large.median == large.tail == pytest.approx(1.1e-5)
    assert tuner.evidence("never.heard") == []


def test_a_quantile_is_a_measured_value() -> None:
    assert quantile([], 0.95) is None
    assert quantile([3.0], 0.5) == 3.0
    assert quantile(range(1, 33), 0.95) == 31
    assert quantile([1, 2, 3, 4], 0.5) == 2
