"""Campaigns that turn slow, fail too much or are stuck."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from engine.decisions.routing import route
from engine.domain.lifecycle import CampaignState
from engine.domain.work import Slice, SliceKind
from engine.pipeline.campaigns.compiled_cache import routing_facts
from engine.pipeline.control.replay import replay
from engine.policy.models import LaneKind
from tests.support.pipeline_world import World

SLOW = {"slow_when": {"per_user_p95": "1ms", "batches": 3}}
FAILS_AT_ZERO = {"campaign": "c", "messages": [{"name": "one", "body": "{{ 10 | divided_by: user.age }}"}]}


def measured(world: World, seconds: float, users: int = 100, batches: int = 3) -> None:
    """Record that many batches of a campaign, of `seconds` each."""
    for _ in range(batches):
        record = world.record("c")
        world.app.campaign_health.batch(
            record, world.app.campaign_cache.profile(record), users, timedelta(seconds=seconds)
        )


def lane(world: World) -> str:
    return route(world.app.policies, routing_facts(world.record("c")), suspect=False, kind=LaneKind.DECIDE)


def test_a_campaign_that_turns_slow_leaves_its_lane_and_comes_back(make_world: Callable[..., World]) -> None:
    world = make_world(**SLOW)
    world.start("campaign: c")
    before = lane(world)
    measured(world, seconds=1.0)
    slow = lane(world)
    measured(world, seconds=0.001)
    assert (before, slow, lane(world)) == ("fast", "slow", "fast")


def test_a_profile_without_a_slow_threshold_moves_no_campaign(world: World) -> None:
    world.start("campaign: c")
    measured(world, seconds=100.0, batches=50)
    assert lane(world) == "fast"


def test_a_campaign_over_its_error_budget_is_paused(world: World) -> None:
    world.users([f"u{i}" for i in range(60)], age=1)
    world.users([f"bad{i}" for i in range(20)], age=0)
    world.start(FAILS_AT_ZERO)
    assert world.record("c").state is CampaignState.PAUSED
    report = world.app.plans.report(world.record("c"))
    assert report.counts.messages["one"].states == {"sent": 60, "failed": 20}


def test_a_resume_accepts_the_failures_and_restarts_the_budget(world: World) -> None:
    world.users([f"u{i}" for i in range(60)], age=1)
    world.users([f"bad{i}" for i in range(20)], age=0)
    world.start(FAILS_AT_ZERO)
    world.steer("resume", "c")
    world.users([f"more{i}" for i in range(99)], age=1)
    world.user("unlucky", age=0)
    world.settle()
    assert world.state("c") == "live", "1 of 100 since the resume"
    world.users([f"worse{i}" for i in range(9)], age=0)
    world.settle()
    assert world.record("c").paused_reason == (
        "the error budget: 10 of 109 deliveries failed since it was resumed (9.2%), the profile default allows 2.0%"
    )
    states = world.app.plans.report(world.record("c")).counts.messages["one"].states
    assert states == {"sent": 159, "failed": 30}, "the report counts all of them"


def test_a_replayed_delivery_counts_again_when_it_fails_again(world: World) -> None:
    world.users([f"u{i}" for i in range(60)], age=1)
    world.users([f"bad{i}" for i in range(60)], age=0)
    world.start(FAILS_AT_ZERO)
    app = world.app
    while world.state("c") == "paused":
        world.steer("resume", "c")
        world.settle()
    assert replay(app.stores.deliveries, app.commands, app.stores.wakeup, app.clock, world.record("c"), None) == 60
    assert world.record("c").accepted == (0, 60)
    world.settle()
    assert "deliveries failed (100.0%)" in str(world.record("c").paused_reason)


def test_a_profile_may_only_report_failures(make_world: Callable[..., World]) -> None:
    world = make_world(errors={"budget": "2%", "then": "report"})
    world.users([f"u{i}" for i in range(60)], age=1)
    world.users([f"bad{i}" for i in range(20)], age=0)
    world.start(FAILS_AT_ZERO)
    assert world.record("c").state is CampaignState.LIVE


def test_failures_of_the_user_are_outside_the_error_budget(world: World) -> None:
    """A missing address, an invalid address or missing consent: skipped and counted, however many."""
    world.users([f"u{i}" for i in range(60)])
    nothing = [None, "", " ", "not an address", "a@b", "a@b..example", "a b@c.example", "@", ["a@b.example"], 7, True]
    for number, address in enumerate(nothing):
        world.user(f"bad{number}", email=address)
    world.users([f"left{i}" for i in range(9)], unsubscribed=True)
    world.start("campaign: c")
    assert world.record("c").state is CampaignState.LIVE
    report = world.app.plans.report(world.record("c"))
    states = {"sent": 60, "skipped(no_address)": len(nothing), "skipped(suppressed)": 9}
    assert report.counts.messages["one"].states == states
    assert report.adds_up
    explanation = world.app.explainer.run(world.record("c"), "bad3")
    assert explanation.address == "the e-mail address is not valid: mails are skipped (no_address)"


def test_a_few_failures_do_not_pause(world: World) -> None:
    world.users([f"u{i}" for i in range(99)], age=1)
    world.user("bad", age=0)
    world.start(FAILS_AT_ZERO)
    assert world.record("c").state is CampaignState.LIVE


def test_a_delivery_that_attempts_for_too_long_makes_its_campaign_stuck(make_world: Callable[..., World]) -> None:
    world = make_world(engine={"attempt_limit": "1m"})
    world.user("u")
    world.start("campaign: c")
    slices, token, over = world.app.stores.slices, "t", timedelta(seconds=-1)
    uid = world.record("c").uid
    slice_ = Slice("shop/c/deliver/1/0000", None, "shop", uid, SliceKind.DELIVER, 0, "0", "g")
    slices.add([slice_])
    slices.claim(slice_.id, token, over)
    assert slices.free(slice_.id, token, suspect=True, deaths=0, after=None)
    assert looked_at(world) is None
    world.database["slices"].update_one({"_id": slice_.id}, {"$set": {"broken_at": datetime(2020, 1, 1, tzinfo=UTC)}})
    assert "was interrupted more than 1m ago" in (looked_at(world) or "")
    slices.claim(slice_.id, token, timedelta(minutes=1))
    assert looked_at(world) is not None
    slices.checkpoint(slice_.id, token, "7", {}, timedelta(minutes=1))
    assert looked_at(world) is None


def looked_at(world: World) -> str | None:
    """Return why the campaign is stuck after one tick of a fresh clock."""
    record, app = world.record("c"), world.open()
    waiting = app.stores.slices.waiting(timedelta(0), 100)
    app.obstacles.mark({record.uid: record}, [record.uid] if record.stuck else [], waiting, [])
    app.close()
    return world.record("c").stuck
