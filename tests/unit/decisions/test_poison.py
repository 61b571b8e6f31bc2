"""The poison rule finds the user that kills workers; a storm that kills every worker buries nobody."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from engine.decisions.poison import (
    DEATHS_TO_BURY,
    DEATHS_TO_HALVE,
    ERRORS_TO_SUSPECT,
    LONGEST_BACKOFF,
    Again,
    Bury,
    Halve,
    after_death,
    after_error,
    after_overrun,
    treatment,
)

LEASE = timedelta(seconds=30)


def died(**more: Any) -> object:
    return after_death(
        **{"suspect": False, "deaths": 0, "errors": 0, "progressed": False, "users": 9, "lease": LEASE, **more}
    )


def failed(**more: Any) -> object:
    return after_error(**{"suspect": False, "deaths": 0, "errors": 0, "users": 9, "lease": LEASE, **more})


def test_a_death_before_a_checkpoint_makes_a_suspect_which_may_run_at_once() -> None:
    assert died() == Again(suspect=True, deaths=0, errors=0, after=None)


def test_a_death_among_other_slices_is_not_counted_for_the_slice() -> None:
    assert died(deaths=7).deaths == 0


def test_a_death_after_progress_makes_no_suspect() -> None:
    assert died(progressed=True) == Again(suspect=False, deaths=0, errors=0, after=None)
    assert died(progressed=True, suspect=True, deaths=1) == Again(suspect=True, deaths=0, errors=0, after=None)


def test_a_suspect_that_dies_alone_is_counted_and_waits_a_lease() -> None:
    assert died(suspect=True) == Again(suspect=True, deaths=1, errors=0, after=LEASE)


def test_a_suspect_of_many_users_is_halved_after_two_deaths() -> None:
    assert died(suspect=True, deaths=DEATHS_TO_HALVE - 1) == Halve()


def test_a_suspect_of_one_user_is_buried_after_exactly_three_deaths() -> None:
    assert died(suspect=True, deaths=DEATHS_TO_BURY - 2, users=1) == Again(
        suspect=True, deaths=2, errors=0, after=LEASE
    )
    assert died(suspect=True, deaths=DEATHS_TO_BURY - 1, users=1) == Bury()


def test_a_suspect_without_users_is_buried() -> None:
    assert died(suspect=True, deaths=DEATHS_TO_BURY - 1, users=0) == Bury()


def test_an_error_backs_off_longer_each_time_up_to_a_limit() -> None:
    waits = [failed(errors=n).after for n in range(12)]
    assert waits[:4] == [timedelta(seconds=1), timedelta(seconds=2), timedelta(seconds=4), timedelta(seconds=8)]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_BACKOFF


def test_three_errors_in_a_row_make_a_suspect() -> None:
    assert [failed(errors=n).suspect for n in range(4)] == [n + 1 >= ERRORS_TO_SUSPECT for n in range(4)]


def test_an_error_of_a_suspect_counts_like_a_death() -> None:
    assert failed(suspect=True) == Again(suspect=True, deaths=1, errors=1, after=LEASE)
    assert failed(suspect=True, deaths=DEATHS_TO_HALVE - 1) == Halve()
    assert failed(suspect=True, deaths=DEATHS_TO_BURY - 1, users=1) == Bury()


@pytest.mark.parametrize("users", [1, 2, 500, 20_000])
def test_halving_finds_one_poisonous_user_and_buries_no_other(users: int) -> None:
    """Each slice that contains the user kills its worker; the other slices end well."""
    poison, buried, finished = users // 3, [], 0
    open_slices, deaths_seen = [(0, users)], 0
    while open_slices:
        first, until = open_slices.pop()
        if not first <= poison < until:
            finished += until - first
            continue
        deaths, suspect = 0, False
        while True:
            deaths_seen += 1
            verdict = died(suspect=suspect, deaths=deaths, users=until - first)
            if isinstance(verdict, Again):
                suspect, deaths = verdict.suspect, verdict.deaths
                continue
            if isinstance(verdict, Bury):
                buried.append(first)
                assert until - first == 1
            else:
                middle = (first + until) // 2
                open_slices += [(first, middle), (middle, until)]
            break
    assert buried == [poison]
    assert finished == users - 1
    assert deaths_seen <= 3 * (users.bit_length() + 1) + 2


def test_a_storm_over_slices_that_are_no_suspects_halves_and_buries_nothing() -> None:
    assert all(isinstance(died(deaths=n, users=u), Again) for n in range(20) for u in range(3))


def test_exceeding_the_time_limit_is_no_death_and_ends_the_suspicion() -> None:
    again = after_overrun(errors=2, overruns=0)
    assert again == Again(suspect=False, deaths=0, errors=2, after=None)


def test_the_back_off_of_a_slice_that_keeps_exceeding_its_limit_grows_to_a_bound() -> None:
    backoffs = [after_overrun(errors=0, overruns=overruns).after for overruns in range(1, 40)]
    assert backoffs == sorted(backoffs, key=lambda backoff: backoff or timedelta(0))
    assert (backoffs[0], backoffs[-1]) == (timedelta(seconds=2), LONGEST_BACKOFF)


@pytest.mark.parametrize("overruns", [1, 2, 50])
@pytest.mark.parametrize(("users", "verdict"), [(0, None), (1, None), (2, Halve()), (20_000, Halve())])
def test_a_slice_that_exceeded_its_limit_is_halved_and_its_last_user_never_buried(
    overruns: int, users: int, verdict: object
) -> None:
    assert treatment(suspect=False, deaths=0, overruns=overruns, users=users) == verdict


def test_a_suspect_is_treated_by_its_deaths() -> None:
    assert treatment(suspect=True, deaths=DEATHS_TO_HALVE - 1, overruns=0, users=9) is None
    assert treatment(suspect=True, deaths=DEATHS_TO_HALVE, overruns=0, users=9) == Halve()
    assert treatment(suspect=True, deaths=DEATHS_TO_HALVE, overruns=0, users=1) is None
    assert treatment(suspect=True, deaths=DEATHS_TO_BURY, overruns=0, users=1) == Bury()
    assert treatment(suspect=False, deaths=DEATHS_TO_BURY, overruns=0, users=9) is None
