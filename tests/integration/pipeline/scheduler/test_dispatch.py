"""Unclaimed slices are enqueued again after a while, and at once by a clock that has just started."""

from __future__ import annotations

from tests.support.pipeline_world import World


def rung(world: World) -> list[str]:
    """Return the enqueued slices; the messages are dropped."""
    ids = [ident for kind, ident, _ in world.asked if kind == "process"]
    world.asked.clear()
    return ids


def test_a_clock_enqueues_a_slice_once_and_its_successor_enqueues_unclaimed_slices(world: World) -> None:
    world.users(["a", "b"])
    world.apply({"campaign": "c"})
    world.launch("c")
    world.tick()
    world.work(lambda kind, _: kind == "plan")
    world.tick()
    (first,) = rung(world)
    world.tick()
    assert rung(world) == [], "it waits for an answer"
    successor = world.open()
    successor.clock_tick.run()
    assert rung(world) == [first]
    successor.clock_tick.run()
    assert rung(world) == []
    successor.close()


def test_an_enqueued_slice_follows_its_campaign_to_another_lane_at_once(world: World) -> None:
    """The old lane's fleet may be busy for minutes: the slice gets a message in its new lane, and only one."""
    world.profile(lane="slow")
    world.reload()
    world.users(["a", "b"])
    world.apply({"campaign": "c"})
    world.launch("c")
    world.tick()
    world.work(lambda kind, _: kind == "plan")
    world.tick()
    (first,) = [ident for kind, ident, lane in world.asked if (kind, lane) == ("process", "slow")]
    world.asked.clear()
    world.profile(lane="fast")
    world.reload()
    world.tick()
    assert [(ident, lane) for kind, ident, lane in world.asked if kind == "process"] == [(first, "fast")]
    world.asked.clear()
    world.tick()
    assert rung(world) == [], "it waits for an answer there"
