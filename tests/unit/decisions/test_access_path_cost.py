"""The planner chooses by the rows that an access path reads and finds, at measured rates; it skips unusable paths."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decisions.access_path_cost import (
    FEWEST_READ,
    FIRST_RATES,
    SLICE_MS,
    Choice,
    Estimate,
    Rates,
    capacity,
    estimates,
    pieces,
)
from engine.domain.work import AccessPath

MILLION = 1_000_000


def choice(matches: int, **more: object) -> Choice:
    """Return a choice in a workspace of a million users, of whom `matches` match, with cache and Elasticsearch."""
    reads = {AccessPath.SCAN: MILLION, AccessPath.CACHE: MILLION, AccessPath.ELASTIC: matches}
    return Choice(**{"users": MILLION, "matches": matches, "reads": reads, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("matches", "expected"),
    [(100, AccessPath.ELASTIC), (10_000, AccessPath.ELASTIC), (100_000, AccessPath.CACHE), (900_000, AccessPath.CACHE)],
)
def test_elasticsearch_serves_small_audiences_and_the_cache_large_ones(matches: int, expected: AccessPath) -> None:
    assert estimates(choice(matches), Rates())[0].path is expected


def test_a_cold_cache_costs_its_loading() -> None:
    warm, cold = (
        next(
            estimate
            for estimate in estimates(choice(500_000, warm=share), Rates())
            if estimate.path is AccessPath.CACHE
        )
        for share in (1.0, 0.0)
    )
    assert cold.seconds > warm.seconds + 20
    assert cold.operations > warm.operations


def test_impossible_paths_are_last_with_their_reasons() -> None:
    paths = estimates(choice(10, impossible={AccessPath.LIST: "no list"}), Rates())
    assert paths[-1].reason == "no list"
    assert not paths[-1].possible
    assert all(path.possible for path in paths[:-1])


@given(
    matches=st.integers(0, MILLION),
    rates=st.dictionaries(st.sampled_from(list(AccessPath)), st.floats(1_000, 5_000_000), max_size=5),
)
def test_the_first_possible_path_is_the_quickest_for_any_rates(matches: int, rates: dict[AccessPath, float]) -> None:
    paths = estimates(choice(matches), Rates({**FIRST_RATES, **rates}))
    assert paths[0].seconds == min(path.seconds for path in paths)


def test_a_rate_follows_measured_runs_except_tiny_ones() -> None:
    rates = Rates()
    for _ in range(30):
        rates = rates.after(AccessPath.CACHE, MILLION, timedelta(seconds=2))
    assert rates.read[AccessPath.CACHE] == pytest.approx(500_000, rel=0.01)
    assert rates.after(AccessPath.CACHE, FEWEST_READ - 1, timedelta(seconds=100)) == rates
    assert rates.after(AccessPath.CACHE, MILLION, timedelta(0)) == rates


@pytest.mark.parametrize(
    ("path", "users", "slices_of_time", "expected"),
    [
        (AccessPath.SCAN, MILLION, 10, 50),
        (AccessPath.SCAN, MILLION, 80, 80),
        (AccessPath.SCAN, 10, 0, 1),
        (AccessPath.CACHE, MILLION, 10, 10),
        (AccessPath.CACHE, MILLION, 1, 4),
        (AccessPath.CACHE, 30_000, 0, 2),
        (AccessPath.ELASTIC, 100, 3, 3),
        (AccessPath.ELASTIC, 0, 0, 1),
    ],
)
def test_slice_sizes_follow_the_target_time_and_the_policy_for_mongodb(
    path: AccessPath, users: int, slices_of_time: int, expected: int
) -> None:
    estimate = Estimate(path, users, slices_of_time * SLICE_MS / 1_000)
    assert pieces(estimate, slice_users=20_000, in_flight=4) == expected


def test_capacity_estimates_workers_needed_and_time_to_finish() -> None:
    needed = capacity(600.0, timedelta(minutes=2), 2)
    assert (needed.workers, needed.there_are, needed.duration) == (5, 2, timedelta(minutes=5))
    assert capacity(0.0, timedelta(minutes=1), 0).workers == 1


def test_an_index_costs_its_reads_and_a_filter_beyond_one_batch() -> None:
    def seconds(matches: int, read: int) -> float:
        paths = estimates(Choice(200_000, matches, {AccessPath.INDEX: read}, batch=5_000), Rates())
        return paths[0].seconds

    assert seconds(300, 25_000) > seconds(300, 300) + 0.3
    assert seconds(5_001, 5_001) > seconds(5_000, 5_000) + 0.4
