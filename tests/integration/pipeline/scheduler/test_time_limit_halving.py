"""A slice that exceeded its time limit is halved before its next claim, also if the clock dies in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final

import pytest

from engine.failpoints import Failpoint, arm
from engine.telemetry.events import listening
from tests.support.pipeline_world import World

NAME: Final = "c"
USERS: Final = tuple(f"u{number}" for number in range(12))
LEASE: Final = timedelta(seconds=30)


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm("")


def overrun(world: World) -> str:
    """Plan a launch of one slice, and let its worker exceed the time limit; return the slice's id."""
    world.users(USERS)
    world.apply({"campaign": NAME, "kind": "one_off"})
    world.launch(NAME)
    world.tick()
    world.work(lambda kind, ident: kind == "plan")
    (slice_,) = slices(world)
    world.tick()
    world.asked.clear()
    exceed(world, slice_["_id"])
    return str(slice_["_id"])


def exceed(world: World, slice_id: str) -> None:
    """Claim a slice and release it as one that exceeded its time limit."""
    store = world.app.stores.slices
    assert store.claim(slice_id, "t", LEASE) is not None
    kept = {"after": None, "suspect": False, "deaths": 0, "errors": 0}
    assert store.release(slice_id, "t", **kept, failure="slow", overran=True)


def slices(world: World) -> list[dict[str, Any]]:
    return list(world.database["slices"].find({"kind": "candidates"}).sort("_id", 1))


def test_it_is_halved_by_users_and_its_halves_decide_in_the_slow_lane(make_world: Callable[..., World]) -> None:
    world = make_world(slice_users=100)
    parent = overrun(world)
    world.tick()
    assert [(raw["_id"], raw["state"]) for raw in slices(world)] == [
        (parent, "split"),
        (f"{parent}a", "open"),
        (f"{parent}b", "open"),
    ]
    world.tick()
    assert {(ident, lane) for what, ident, lane in world.asked if what == "process" and ident != parent} == {
        (f"{parent}a", "slow"),
        (f"{parent}b", "slow"),
    }
    world.settle()
    assert [raw["state"] for raw in slices(world)] == ["split", "done", "done"]
    assert [raw["results"]["entered"] for raw in slices(world)[1:]] == [6, 6]


@pytest.mark.parametrize("point", ["poison.half_written", "poison.halved"])
def test_a_clock_that_dies_between_the_children_and_the_parent_loses_nobody(
    point: str, make_world: Callable[..., World]
) -> None:
    world = make_world(slice_users=100)
    parent = overrun(world)
    arm(f"{point}=raise")
    with pytest.raises(Failpoint):
        world.app.expired_leases.treat(parent)
    world.settle()
    assert [raw["state"] for raw in slices(world)] == ["split", "done", "done"]
    assert [len(world.enrolments(NAME, user)) for user in USERS] == [1] * len(USERS)
    assert len(world.sent()) == len(USERS)


def test_a_worker_that_finds_its_limit_exceeded_between_batches_gives_the_rest_back(
    make_world: Callable[..., World],
) -> None:
    """Its finished batches count; the rest is halved, and a slice of one batch ends before it is asked."""
    world = make_world(slice_users=100, batch={"candidates": [2]})
    world.app.hooks.time_left = lambda: -1.0
    world.users(USERS)
    world.apply({"campaign": NAME, "kind": "one_off"})
    world.launch(NAME)
    with listening() as heard:
        world.settle()
    released = heard.of("slice.released", reason="time_limit")
    assert released
    assert {event.fields["kind"] for event in released} == {"candidates"}, "a delivering slice is never ended by it"
    assert heard.of("slice.split", reason="time_limit")
    assert {raw["state"] for raw in slices(world)} == {"split", "done"}
    assert [len(world.enrolments(NAME, user)) for user in USERS] == [1] * len(USERS)
    assert len(world.sent()) == len(USERS)
    assert world.state(NAME) == "finished"
