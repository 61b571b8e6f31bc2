"""Slices and their leases on MongoDB: each compare-and-set refuses stale writes, by MongoDB's own clock."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from bson import BSON
from pymongo.database import Database

from engine.domain.lifecycle import SliceState
from engine.domain.work import Slice, SliceKind
from engine.stores.mongo.client import EPOCH
from engine.stores.mongo.slices import INDEXES, MOST_TURNS, Slices
from tests.support.decision_cases import DAY
from tests.support.store_threads import together

LEASE = timedelta(seconds=30)
OVER = timedelta(seconds=-1)
"""A lease of this length has run out when it is written."""


@pytest.fixture
def slices(database: Database[dict[str, Any]]) -> Slices:
    database.slices.create_indexes(list(INDEXES))
    return Slices(database)


def slice_of(
    number: int = 0, *, run: str | None = "r1", campaign: str = "c1", kind: SliceKind = SliceKind.CANDIDATES
) -> Slice:
    return Slice(f"{run}/{number:04d}", run, "shop", campaign, kind, 5, "00000000", "g")


@pytest.fixture
def slice_key(slices: Slices) -> str:
    slices.add([slice_of()])
    return slice_of().id


def again(slices: Slices, slice_id: str, token: str, **more: Any) -> bool:
    return slices.release(slice_id, token, **{"after": None, "suspect": False, "deaths": 0, "errors": 0, **more})


def test_a_slice_added_twice_is_written_once_and_unchanged(slices: Slices, slice_key: str) -> None:
    slices.claim(slice_key, "t", LEASE)
    slices.add([slice_of(), slice_of(1)])
    stored = slices.get(slice_key)
    assert stored is not None
    assert (stored.attempt, stored.token) == (1, "t")
    assert len(slices.of_run("r1")) == 2


def test_a_claim_charges_an_attempt_and_names_the_lease(slices: Slices, slice_key: str) -> None:
    held = slices.claim(slice_key, "t1", LEASE)
    assert held is not None
    assert (held.attempt, held.token, held.cursor) == (1, "t1", None)


def test_a_held_slice_is_not_claimed_even_after_its_lease_ran_out(slices: Slices, slice_key: str) -> None:
    slices.claim(slice_key, "t1", LEASE)
    assert slices.claim(slice_key, "t2", LEASE) is None
    slices.add([slice_of(1)])
    slices.claim(slice_of(1).id, "t1", OVER)
    assert slices.claim(slice_of(1).id, "t2", LEASE) is None


def test_an_ended_or_missing_slice_is_not_claimed(slices: Slices, slice_key: str) -> None:
    slices.claim(slice_key, "t1", LEASE)
    assert slices.close(slice_key, "t1", SliceState.DONE, {"users": 3})
    assert slices.claim(slice_key, "t2", LEASE) is None
    assert slices.claim("nowhere", "t2", LEASE) is None


def test_concurrent_claims_give_the_slice_once_and_charge_one_attempt(slices: Slices, slice_key: str) -> None:
    held = [slice_ for slice_ in together(12, lambda i: slices.claim(slice_key, f"t{i}", LEASE)) if slice_ is not None]
    assert [slice_.attempt for slice_ in held] == [1]
    stored = slices.get(slice_key)
    assert stored is not None
    assert stored.token == held[0].token


def test_a_checkpoint_moves_the_cursor_keeps_the_results_and_forgives_errors(slices: Slices, slice_key: str) -> None:
    slices.claim(slice_key, "t", LEASE)
    again(slices, slice_key, "t", errors=2)
    slices.claim(slice_key, "t", LEASE)
    assert slices.checkpoint(slice_key, "t", "7f/$set", {"users": 500}, LEASE)
    stored = slices.get(slice_key)
    assert stored is not None
    assert (stored.cursor, stored.results, stored.errors) == ("7f/$set", {"users": 500}, 0)


def test_a_checkpoint_renews_the_lease(slices: Slices, slice_key: str) -> None:
    slices.claim(slice_key, "t", LEASE)
    assert slices.checkpoint(slice_key, "t", "7f", {}, OVER)
    assert [late.slice.id for late in slices.expired()] == [slice_key]


@pytest.mark.parametrize("token", ["another", ""])
def test_a_worker_without_the_lease_writes_nothing(slices: Slices, slice_key: str, token: str) -> None:
    slices.claim(slice_key, "t", LEASE)
    assert not slices.checkpoint(slice_key, token, "7f", {}, LEASE)
    assert not slices.close(slice_key, token, SliceState.DONE, {})
    assert not again(slices, slice_key, token)
    stored = slices.get(slice_key)
    assert stored is not None
    assert (stored.state, stored.cursor, stored.token) == (SliceState.OPEN, None, "t")


def test_a_checkpoint_under_a_lease_that_ran_out_is_refused(slices: Slices, slice_key: str) -> None:
    slices.claim(slice_key, "t", OVER)
    assert not slices.checkpoint(slice_key, "t", "7f", {}, LEASE)


def test_a_closed_slice_keeps_its_results_and_is_no_longer_open(slices: Slices, slice_key: str) -> None:
    slices.claim(slice_key, "t", LEASE)
    assert slices.has_open("r1")
    assert slices.close(slice_key, "t", SliceState.DONE, {"users": 3})
    assert not slices.has_open("r1")
    assert not slices.close(slice_key, "t", SliceState.DONE, {"users": 4})
    assert slices.of_run("r1")[0].results == {"users": 3}


def test_a_released_slice_may_be_claimed_at_once_or_after_its_back_off(slices: Slices, slice_key: str) -> None:
    slices.claim(slice_key, "t1", LEASE)
    assert again(slices, slice_key, "t1", suspect=True, deaths=1, errors=4)
    held = slices.claim(slice_key, "t2", LEASE)
    assert held is not None
    assert (held.attempt, held.suspect, held.deaths, held.errors) == (2, True, 1, 4)
    again(slices, slice_key, "t2", after=timedelta(hours=1))
    assert slices.claim(slice_key, "t3", LEASE) is None
    assert [waiting.ready for waiting in slices.waiting(LEASE, 10)] == [False]


def test_an_elapsed_back_off_does_not_block_a_claim(slices: Slices, slice_key: str) -> None:
    slices.claim(slice_key, "t1", LEASE)
    again(slices, slice_key, "t1", after=OVER)
    assert slices.claim(slice_key, "t2", LEASE) is not None


def test_only_expired_leases_are_reported_with_their_progress(slices: Slices) -> None:
    slices.add([slice_of(n) for n in range(4)])
    slices.claim(slice_of(0).id, "t0", LEASE)
    slices.claim(slice_of(1).id, "t1", OVER)
    slices.claim(slice_of(2).id, "t2", LEASE)
    slices.checkpoint(slice_of(2).id, "t2", "7f", {}, OVER)
    assert {(late.slice.id, late.token, late.progressed) for late in slices.expired()} == {
        (slice_of(1).id, "t1", False),
        (slice_of(2).id, "t2", True),
    }


def test_only_an_expired_lease_is_freed_and_only_under_its_token(slices: Slices, slice_key: str) -> None:
    slices.claim(slice_key, "t1", LEASE)
    assert not slices.free(slice_key, "t1", suspect=True, deaths=0, after=None)
    slices.checkpoint(slice_key, "t1", "7f", {}, OVER)
    assert not slices.free(slice_key, "t0", suspect=True, deaths=0, after=None)
    assert slices.free(slice_key, "t1", suspect=True, deaths=1, after=None)
    assert not slices.free(slice_key, "t1", suspect=True, deaths=2, after=None)
    held = slices.claim(slice_key, "t2", LEASE)
    assert held is not None
    assert (held.suspect, held.deaths, held.cursor, held.attempt) == (True, 1, "7f", 2)


def test_the_dispatcher_reads_how_long_ago_a_slice_was_interrupted(
    slices: Slices, slice_key: str, database: Database[dict[str, Any]]
) -> None:
    def broken_for() -> int | None:
        (waiting,) = slices.waiting(LEASE, 10)
        return waiting.broken_for

    for token in ("t1", "t2"):
        slices.claim(slice_key, token, OVER)
        assert slices.free(slice_key, token, suspect=True, deaths=0, after=None)
        if token == "t1":
            assert broken_for() is not None
            database.slices.update_one({"_id": slice_key}, {"$set": {"broken_at": EPOCH}})
    assert (broken_for() or 0) > DAY  # since the first interruption, because the second made no progress
    slices.claim(slice_key, "t3", LEASE)
    slices.checkpoint(slice_key, "t3", "7f", {}, LEASE)
    assert broken_for() is None


def test_concurrent_recoveries_of_a_lease_count_one_death(slices: Slices, slice_key: str) -> None:
    slices.claim(slice_key, "t", OVER)
    freed = together(8, lambda i: slices.free(slice_key, "t", suspect=True, deaths=i, after=None))
    assert sum(freed) == 1
    stored = slices.get(slice_key)
    assert stored is not None
    assert freed[stored.deaths]


def test_a_holder_whose_lease_was_freed_cannot_write(slices: Slices, slice_key: str) -> None:
    slices.claim(slice_key, "t1", OVER)
    slices.free(slice_key, "t1", suspect=False, deaths=0, after=None)
    slices.claim(slice_key, "t2", LEASE)
    assert not slices.checkpoint(slice_key, "t1", "7f", {}, LEASE)
    assert not slices.close(slice_key, "t1", SliceState.DONE, {})
    assert slices.close(slice_key, "t2", SliceState.DONE, {})


def test_a_held_slice_is_neither_ended_nor_dropped_over_its_holder(slices: Slices) -> None:
    slices.add([slice_of(n) for n in range(3)])
    slices.claim(slice_of(0).id, "t", LEASE)
    assert not slices.end_unclaimed(slice_of(0).id, SliceState.DEAD)
    assert slices.end_unclaimed(slice_of(1).id, SliceState.SPLIT)
    assert not slices.end_unclaimed(slice_of(1).id, SliceState.DEAD)
    assert slices.drop_unclaimed("r1") == 1
    states = {slice_.id: slice_.state for slice_ in slices.of_run("r1")}
    assert [states[slice_of(n).id] for n in range(3)] == [SliceState.OPEN, SliceState.SPLIT, SliceState.DROPPED]


def test_the_dispatcher_sees_held_enqueued_and_ready_slices(slices: Slices) -> None:
    slices.add([slice_of(n) for n in range(3)])
    slices.claim(slice_of(0).id, "t", LEASE)
    slices.ring([slice_of(0).id, slice_of(1).id], "fast")
    seen = {slice_.id: (slice_.held, slice_.rung, slice_.ready) for slice_ in slices.waiting(LEASE, 10)}
    assert seen == {
        slice_of(0).id: (True, False, True),
        slice_of(1).id: (False, True, True),
        slice_of(2).id: (False, False, True),
    }


def test_an_old_enqueue_mark_counts_as_lost_and_a_claim_clears_it(slices: Slices, slice_key: str) -> None:
    slices.ring([slice_key], "fast")
    assert [waiting.rung for waiting in slices.waiting(OVER, 10)] == [False]
    slices.claim(slice_key, "t", LEASE)
    again(slices, slice_key, "t")
    assert [waiting.rung for waiting in slices.waiting(LEASE, 10)] == [False]


def test_the_dispatcher_reads_at_most_its_limit_in_order(slices: Slices) -> None:
    slices.add([slice_of(n) for n in reversed(range(5))])
    assert [waiting.id for waiting in slices.waiting(LEASE, 2)] == [slice_of(0).id, slice_of(1).id]


def test_campaigns_with_open_slices_are_those_of_the_kind(slices: Slices) -> None:
    slices.add([slice_of(0), slice_of(1, campaign="c2"), slice_of(2, kind=SliceKind.DELIVER, run=None)])
    assert slices.campaigns_with_open(SliceKind.CANDIDATES) == {"c1", "c2"}
    assert slices.campaigns_with_open(SliceKind.DELIVER) == {"c1"}
    assert slices.campaigns_with_open(SliceKind.DUE) == set()


def test_only_slices_ended_long_ago_expire(slices: Slices) -> None:
    slices.add([slice_of(0), slice_of(1)])
    slices.end_unclaimed(slice_of(0).id, SliceState.DROPPED)
    assert slices.forget_ended(timedelta(hours=1)) == 0
    assert slices.forget_ended(OVER) == 1
    assert [slice_.id for slice_ in slices.of_run("r1")] == [slice_of(1).id]


def test_an_ended_slice_is_the_record_of_its_turns_and_its_lane(slices: Slices, slice_key: str) -> None:
    slices.ring([slice_key], "fast")
    slices.claim(slice_key, "t1", LEASE)
    again(slices, slice_key, "t1", after=timedelta(milliseconds=1))
    while slices.claim(slice_key, "t2", LEASE) is None:
        pass
    slices.ring([slice_key], "slow")
    slices.close(slice_key, "t2", SliceState.DONE, {"users": 7, "chosen": 1})
    (record,) = slices.recorded(LEASE)
    assert (record.id, record.workspace, record.campaign, record.kind) == (
        slice_key,
        "shop",
        "c1",
        SliceKind.CANDIDATES,
    )
    assert (record.lane, record.users, record.suspect) == ("fast", 7, False), "a held slice is not enqueued"
    first, second = record.turns
    assert first.free == 0, "it is free as soon as it is added"
    assert first.claimed <= first.ended < second.free <= second.claimed <= second.ended, "the back-off is no wait"
    assert record.worked == first.held + second.held


def test_a_turn_that_ends_with_its_lease_is_recorded(slices: Slices, slice_key: str) -> None:
    slices.claim(slice_key, "t1", OVER)
    slices.free(slice_key, "t1", suspect=True, deaths=0, after=None)
    slices.claim(slice_key, "t2", LEASE)
    slices.close(slice_key, "t2", SliceState.DONE, {})
    (record,) = slices.recorded(LEASE)
    assert (len(record.turns), record.suspect) == (2, True)


def test_records_reach_back_only_as_far_as_asked_and_hold_a_bounded_number_of_turns(
    slices: Slices, slice_key: str, database: Database[dict[str, Any]]
) -> None:
    for number in range(MOST_TURNS + 2):
        slices.claim(slice_key, f"t{number}", LEASE)
        again(slices, slice_key, f"t{number}")
    slices.claim(slice_key, "last", LEASE)
    slices.close(slice_key, "last", SliceState.DONE, {})
    (record,) = slices.recorded(LEASE)
    assert len(record.turns) == MOST_TURNS
    database.slices.update_one({"_id": slice_key}, [{"$set": {"ended_at": {"$subtract": ["$$NOW", 3_600_000]}}}])
    assert slices.recorded(timedelta(minutes=59)) == []
    assert len(slices.recorded(timedelta(minutes=61))) == 1


def test_a_slice_of_an_earlier_engine_has_no_turns(
    slices: Slices, slice_key: str, database: Database[dict[str, Any]]
) -> None:
    database.slices.update_one({"_id": slice_key}, {"$unset": {"added_at": 1}})
    slices.claim(slice_key, "t", LEASE)
    slices.close(slice_key, "t", SliceState.DONE, {})
    assert [record.turns for record in slices.recorded(LEASE)] == [()]


def test_the_record_adds_little_to_a_slice(slices: Slices, slice_key: str, database: Database[dict[str, Any]]) -> None:
    slices.ring([slice_key], "fast")
    slices.claim(slice_key, "t", LEASE)
    slices.close(slice_key, "t", SliceState.DONE, {})
    stored = database.slices.find_one({"_id": slice_key}) or {}
    kept = {key: value for key, value in stored.items() if key not in ("added_at", "turns", "lane")}
    assert len(BSON.encode(stored)) - len(BSON.encode(kept)) < 100
