"""Campaigns that turn slow, fail too much or are stuck."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from engine.clock import SystemClock
from engine.decisions.routing import route
from engine.domain.lifecycle import CampaignState
from engine.domain.work import Slice, SliceKind
from engine.pipeline.campaigns.compiled_cache import routing_facts
from engine.pipeline.campaigns.health import MEASURED_EVERY, CampaignHealth
from engine.pipeline.control.replay import replay
from engine.pipeline.insight.slowness_evidence import evidence_of
from engine.policy.models import LaneKind
from tests.support.installation import Installation
from tests.support.pipeline_world import World

SLOW = {"slow_when": {"per_user_p95": "1ms", "batches": 3, "at_least": "0s"}}
FAILS_AT_ZERO = {"campaign": "c", "messages": [{"name": "one", "body": "{{ 10 | divided_by: user.age }}"}]}


class Time(SystemClock):
    """System time that a test moves."""

    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def system_now(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


def health(world: World, time: Time | None = None) -> CampaignHealth:
    """The health of a process of its own, which writes each batch at once unless it has a `time`."""
    app, every = world.app, MEASURED_EVERY if time else 0.0
    return CampaignHealth(app.stores.campaigns, app.stores.counts, app.campaign_cache, time or app.clock, every=every)


def measured(
    world: World, seconds: float, users: int = 100, batches: int = 3, by: Sequence[CampaignHealth] = ()
) -> None:
    """Record that many batches of a campaign, of `seconds` each, by the processes `by` in turns."""
    processes = by or [health(world)]
    for number in range(batches):
        record = world.record("c")
        profile = world.app.campaign_cache.profile(record)
        processes[number % len(processes)].batch(record, profile, users, timedelta(seconds=seconds), "users.scan")


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


def test_the_verdict_is_that_of_all_processes_together(make_world: Callable[..., World]) -> None:
    world = make_world(**SLOW)
    world.start("campaign: c")
    measured(world, seconds=1.0, by=[health(world), health(world), health(world)])
    assert lane(world) == "slow"
    slowness = world.record("c").slowness
    assert slowness is not None
    assert (slowness.batches, slowness.p50, slowness.p95, slowness.limit) == (3, 0.01, 0.01, 0.001)
    assert slowness.text == ("p95 10 ms a user over 3 batches by users.scan (p50 10 ms), the profile allows 1 ms")


def test_a_slow_campaign_stays_in_its_lane_for_a_while(make_world: Callable[..., World]) -> None:
    world = make_world(slow_when={"per_user_p95": "1ms", "batches": 3, "at_least": "5m"})
    world.start("campaign: c")
    time = Time()
    process = [health(world, time)]
    measured(world, seconds=1.0, by=process)
    lanes = []
    for _ in range(6):
        time.ms += 60_000
        measured(world, seconds=0.001, by=process)
        lanes.append(lane(world))
    assert lanes == ["slow"] * 4 + ["fast"] * 2


def test_a_campaign_on_the_border_moves_at_most_twice_in_ten_minutes(make_world: Callable[..., World]) -> None:
    world = make_world(slow_when={"per_user_p95": "1ms", "batches": 10})
    world.start("campaign: c")
    time, chance = Time(), Random(7)
    processes = [health(world, time) for _ in range(4)]
    moves: list[int] = []
    for _ in range(400):
        time.ms += 4_000
        before = lane(world)
        quick = 0.3 if time.ms // 30_000 % 2 else 1.0  # half a minute on the border, half a minute quick
        measured(world, seconds=0.1 * quick * chance.uniform(0.6, 1.4), batches=2, by=chance.sample(processes, 2))
        if lane(world) != before:
            moves.append(time.ms)
    assert len(moves) >= 2, "it is slow, and it recovers"
    assert all(later - earlier > 600_000 for earlier, later in zip(moves, moves[2:], strict=False))


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


def test_the_route_of_a_campaign_shows_the_measured_evidence(make_world: Callable[..., World]) -> None:
    world = make_world(**SLOW)
    world.start("campaign: c")
    rule, times = world.app.campaign_cache.profile(world.record("c")).slow_when, world.app.stores.campaigns
    assert evidence_of(world.record("c"), rule, times).rows()[1:] == [
        ("holds", "no, never moved"),
        ("measured since", "no batch"),
    ]
    measured(world, seconds=0.05, batches=2)
    assert evidence_of(world.record("c"), rule, times).document()["latest"] == {
        "batches": 2,
        "p50": 0.0005,
        "p95": 0.0005,
    }
    measured(world, seconds=1.0, batches=3)
    slow = evidence_of(world.record("c"), rule, times)
    document = slow.document()
    assert (document["holds"], document["batches"], document["p95"], document["query"]) == (True, 3, 0.01, "users.scan")
    assert document["since"] is not None
    assert "p95 10 ms a user over 3 batches by users.scan" in dict(slow.rows())["holds"]
    assert evidence_of(world.record("c"), None, times).document()["holds"] is None


def test_policy_route_of_a_name_reads_the_evidence_from_mongodb(
    make_world: Callable[..., World], services: Any
) -> None:
    world = make_world(**SLOW)
    world.start("campaign: c")
    measured(world, seconds=1.0)
    told = Installation(world, services, {}).call("policy", "route", "c", "--json")
    assert told.code == 0, told.err
    assert told.document["lane"] == "slow"
    assert (told.document["measured"]["holds"], told.document["measured"]["query"]) == (True, "users.scan")
