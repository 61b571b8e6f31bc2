"""The picture of the installation, read from real stores: lanes that flood and recover, and stores that are away."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from actors.broker.queue_views import queue_views
from engine.domain.system_view import LaneNode, Level, ProcessReport, SystemView
from tests.support.pipeline_shop import POLICIES
from tests.support.pipeline_world import World

LANES = ("control", "looks", "index", "fast", "slow", "deliver")


def alive(world: World, *lanes: str, kind: str = "all", report: ProcessReport | None = None) -> None:
    """Let a process of this kind report itself."""
    report = report or ProcessReport(threads=4)
    world.app.stores.processes.beat(f"host:1:{kind}", kind, lanes or LANES, (), report)


def seen(world: World) -> SystemView:
    return world.app.system_reader.read()


def lane(world: World, name: str = "fast") -> LaneNode:
    return next(one for one in seen(world).lanes if one.name == name)


def wait_for(fact: Callable[[], bool], limit: float = 5.0) -> float:
    """Wait until `fact`, at most `limit` seconds; return how long it took."""
    began = time.monotonic()
    while not fact():
        assert time.monotonic() - began < limit, "it did not come true in time"
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.fixture
def alarmed(world: World) -> World:
    """A world whose fast lane gives an alarm after a second."""
    lanes = {**POLICIES["lanes"], "fast": {"kind": "decide", "alarm": "1s"}}
    world.policies({**POLICIES, "lanes": lanes})
    return world


def test_open_slices_count_in_the_lane_that_the_policies_give_them(world: World) -> None:
    world.users([f"u{n}" for n in range(4)], plan="free")
    world.apply({"campaign": "quick", "audience": {"plan": "free"}})
    world.launch("quick")
    world.tick()
    world.work(lambda kind, _: kind == "plan")
    alive(world)
    view = seen(world)
    waiting = {one.name: one.slices for one in view.lanes if one.slices}
    assert waiting == {world.app.plans.plan(world.record("quick")).lane: 1}
    assert view.campaigns == {"live": 1}
    assert view.policy == world.app.policies.version
    assert not view.missing


def test_a_lane_that_floods_turns_failing_and_recovers_within_five_seconds(alarmed: World) -> None:
    world = alarmed
    world.users(["u1"], plan="free")
    world.apply({"campaign": "quick", "audience": {"plan": "free"}})
    world.launch("quick")
    world.tick()
    world.work(lambda kind, _: kind == "plan")
    alive(world)
    assert lane(world).verdict.level is Level.FINE
    wait_for(lambda: lane(world).verdict.level is Level.FAILING)
    assert "longer than 1s" in lane(world).verdict.why
    assert seen(world).verdict.level is Level.FAILING
    world.settle()
    alive(world)
    wait_for(lambda: lane(world).verdict.level is Level.IDLE)
    assert lane(world).waits.worst_campaign == "shop/quick"
    assert (lane(world).waits.worst or 0) >= 1


def test_the_slices_of_a_paused_campaign_do_not_count_as_waiting(alarmed: World) -> None:
    world = alarmed
    world.users(["u1"], plan="free")
    world.apply({"campaign": "quick", "audience": {"plan": "free"}})
    world.launch("quick")
    world.tick()
    world.work(lambda kind, _: kind == "plan")
    alive(world)
    assert lane(world).slices == 1
    world.steer("pause", "quick")
    assert (lane(world).slices, lane(world).oldest) == (0, None)


def test_a_lane_that_no_living_process_serves_fails_once_it_has_work(world: World) -> None:
    alive(world, "control", "looks")
    assert lane(world).verdict.level is Level.STRAINED
    world.users(["u1"], plan="free")
    world.apply({"campaign": "quick", "audience": {"plan": "free"}})
    world.launch("quick")
    world.tick()
    world.work(lambda kind, _: kind == "plan")
    flooded = next(one for one in seen(world).lanes if one.slices)
    assert flooded.verdict.level is Level.FAILING
    assert "no living process serves the lane" in flooded.verdict.why


def test_rates_of_processes_add_up_on_lanes_stores_and_channels(world: World) -> None:
    for number in range(2):
        report = ProcessReport(
            4,
            3,
            2**20,
            {"slices.deliver": 1.5, "deliveries.email.sent": 40.0, "calls.mongodb": 7.0},
            {"slices.deliver": 15, "deliveries.email.sent": 400, "calls.mongodb": 70},
        )
        world.app.stores.processes.beat(f"host:{number}:all", "all", ["deliver"], (), report)
    view = seen(world)
    assert next(one for one in view.lanes if one.name == "deliver").rate == 3.0
    assert view.channels[0].rates == {"sent": 80.0}
    assert next(one for one in view.stores if one.name == "mongodb").rate == 14.0
    fleet = next(one for one in view.fleets if one.name == "all")
    assert (fleet.busy, len(fleet.processes)) == (6, 2)


def test_what_redis_holds_is_shown_where_the_broker_is_asked(world: World) -> None:
    assert lane(world).ready is None
    client, database = world.app.stores.broker_client, world.app.settings.services.mongo_database
    world.app.hooks.queues = queue_views(client, database)
    assert (lane(world).ready, lane(world).dead) == (0, 0)


def test_a_broker_that_is_away_is_named_and_the_rest_is_shown(world: World) -> None:
    def away() -> None:
        raise ConnectionError

    alive(world)
    reader = world.app.system_reader
    reader._pings = {**reader._pings, "broker": away}
    view = reader.read()
    assert view.missing == ("broker",)
    broker = next(one for one in view.stores if one.name == "broker")
    assert broker.verdict.level is Level.FAILING
    assert next(one for one in view.fleets if one.name == "all").processes
    assert view.gate is None


def test_without_mongodb_lanes_and_fleets_are_not_known_but_the_picture_is_there(world: World) -> None:
    def away() -> None:
        raise ConnectionError

    reader = world.app.system_reader
    reader._pings = {**reader._pings, "mongodb": away}
    view = reader.read()
    assert "mongodb" in view.missing
    assert {one.verdict.level for one in (*view.lanes, *view.fleets, *view.producers)} == {Level.UNKNOWN}
    assert view.verdict.level is Level.FAILING
