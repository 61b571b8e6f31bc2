"""Chosen deliveries get slices at once, so mails go out while the run is still deciding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.domain.work import SliceKind
from engine.pipeline.evaluation import hand_over_deliveries
from engine.pipeline.evaluation.hand_over_deliveries import DeliveryHandover
from tests.support.pipeline_world import World

USERS = [f"u{number}" for number in range(60)]


@pytest.fixture
def world(make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(hand_over_deliveries, "PART", 5)
    monkeypatch.setattr(hand_over_deliveries, "WORTH", 8)
    made = make_world(batch={"candidates": [4]}, slice_users=20)
    made.users(USERS, plan="free")
    return made


def parts(world: World) -> list[dict[str, Any]]:
    """Return the delivering slices so far."""
    return list(world.database["slices"].find({"kind": SliceKind.DELIVER.value}).sort("first", 1))


def heard_nothing(world: World) -> None:
    """Enqueue unclaimed slices again."""
    world.database["slices"].update_many({}, {"$unset": {"rung_at": ""}})


def decide_one(world: World) -> None:
    """Process only the first deciding slice."""
    for _ in range(2):
        world.tick()
        kinds = [(kind, ident) for kind, ident, _ in world.asked]
        world.asked.clear()
        for kind, ident in kinds:
            if kind != "deliver":
                world.do(kind, ident)
                if kind == "process":
                    return


def test_delivery_slices_exist_before_the_run_is_decided(world: World) -> None:
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    decide_one(world)
    made = parts(world)
    assert len(made) >= 3, "about five deliveries each"
    assert world.runs("hello")[0]["state"] == "running"
    heard_nothing(world)
    world.settle()
    assert [user for user, _ in world.sent()] == sorted(USERS)
    assert not list(world.database["slices"].find({"state": "open"}))


def test_each_chosen_delivery_lies_in_a_slice(world: World) -> None:
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    for _ in range(3):
        world.tick()
        world.work(lambda kind, ident: kind != "deliver")
    ranges = [(part["first"], part["until"]) for part in parts(world)]
    for enrolment in world.enrolments("hello"):
        rest = enrolment.id.split("/", 2)[2]
        assert any(first < rest < until for first, until in ranges), rest


def test_few_deliveries_of_many_users_share_a_slice(world: World) -> None:
    for user in USERS[:3]:
        world.change(user, plan="gold")
    world.apply({"campaign": "hello", "kind": "one_off", "audience": {"plan": "gold"}})
    world.launch("hello")
    for _ in range(3):
        world.tick()
        world.work(lambda kind, ident: kind != "deliver")
    assert 1 <= len(parts(world)) <= 3, "one for each deciding slice that chose any"
    heard_nothing(world)
    world.settle()
    assert len(world.sent()) == 3


def test_deliveries_that_a_dead_worker_did_not_hand_over_are_still_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeliveryHandover, "chosen", lambda *_: None)
    world.start({"campaign": "hello", "kind": "one_off"})
    assert [user for user, _ in world.sent()] == sorted(USERS)
