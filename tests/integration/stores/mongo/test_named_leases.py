"""Named leases: one holder at a time, each new one with a higher number, by MongoDB's own clock."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from engine.stores.mongo.named_leases import Leases
from tests.support.store_threads import together

LEASE = timedelta(seconds=30)
OVER = timedelta(seconds=-1)


@pytest.fixture
def leases(database: Database[dict[str, Any]]) -> Leases:
    return Leases(database)


def test_the_first_caller_holds_a_lease_and_others_do_not(leases: Leases) -> None:
    assert leases.hold("clock", "a", LEASE) == 1
    assert leases.hold("clock", "b", LEASE) is None


def test_the_holder_renews_a_lease_under_the_same_number(leases: Leases) -> None:
    assert [leases.hold("clock", "a", LEASE) for _ in range(3)] == [1, 1, 1]


def test_a_new_holder_gets_a_higher_number(leases: Leases) -> None:
    leases.hold("clock", "a", OVER)
    assert leases.hold("clock", "b", OVER) == 2
    assert leases.hold("clock", "a", LEASE) == 3


def test_a_released_lease_is_free_at_once_and_its_number_is_not_reused(leases: Leases) -> None:
    leases.hold("clock", "a", LEASE)
    leases.give_up("clock", "a")
    assert leases.hold("clock", "b", LEASE) == 2


def test_only_the_holder_releases_a_lease(leases: Leases) -> None:
    leases.hold("clock", "a", LEASE)
    leases.give_up("clock", "b")
    assert leases.hold("clock", "b", LEASE) is None


def test_leases_of_different_names_are_independent(leases: Leases) -> None:
    assert leases.hold("clock", "a", LEASE) == leases.hold("feed", "b", LEASE) == 1


def test_concurrent_callers_get_a_lease_once(leases: Leases) -> None:
    numbers = together(12, lambda i: leases.hold("clock", f"owner{i}", LEASE))
    assert [number for number in numbers if number is not None] in ([1], [])
    assert sum(leases.hold("clock", f"owner{i}", LEASE) is not None for i in range(12)) == 1


def test_concurrent_callers_get_an_expired_lease_once(leases: Leases) -> None:
    leases.hold("clock", "dead", OVER)
    numbers = together(12, lambda i: leases.hold("clock", f"owner{i}", LEASE))
    assert [number for number in numbers if number is not None] == [2]
