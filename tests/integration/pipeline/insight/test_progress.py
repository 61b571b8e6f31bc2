"""How far a campaign is, from its runs and slices alone."""

from __future__ import annotations

from engine.domain.campaign_progress import Progress
from tests.support.pipeline_world import World


def progress(world: World, name: str) -> Progress:
    return world.app.progress.of(world.record(name))


def test_a_launch_goes_from_waiting_through_deciding_and_sending_to_its_end(world: World) -> None:
    world.users([f"u{n}" for n in range(30)], plan="free")
    world.apply({"campaign": "once", "kind": "one_off", "audience": {"plan": "free"}})
    assert progress(world, "once").phase == "waiting"
    world.launch("once")
    world.tick()
    world.work(lambda kind, _: kind == "plan")
    cut = progress(world, "once")
    assert (cut.phase, cut.share, cut.evaluated) == ("deciding", 0.0, 0)
    world.tick()
    world.work(lambda kind, _: kind in ("process", "finish"))
    decided = progress(world, "once")
    assert (decided.evaluated, decided.chosen, decided.sent) == (30, 30, 0)
    world.tick()
    assert progress(world, "once").phase == "sending"
    world.settle()
    ended = progress(world, "once")
    assert (ended.phase, ended.sent, ended.failed) == ("ended", 30, 0)


def test_the_rate_and_the_time_left_come_from_two_readings(world: World) -> None:
    world.users([f"u{n}" for n in range(4)], plan="free")
    world.start({"campaign": "once", "kind": "one_off", "audience": {"plan": "free"}})
    assert progress(world, "once").rate == 0
    reader = world.app.progress
    uid = world.record("once").uid
    reader._past[uid][0] = (reader._past[uid][0][0] - 2.0, 0)
    assert 1 < progress(world, "once").rate <= 2


def test_a_paused_campaign_is_paused(world: World) -> None:
    world.users(["u1"], plan="free")
    world.start({"campaign": "hello", "audience": {"plan": "free"}, "messages": [{"name": "one", "wait": "9d"}]})
    assert progress(world, "hello").phase == "resting"
    world.steer("pause", "hello")
    assert progress(world, "hello").phase == "paused"
