"""Campaigns that should have gone on by now and have not: each reason, and what is not late at all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from engine.domain.gate import GateState, Gauge, Hold, Member, Override
from engine.domain.stuck import StuckBy
from engine.domain.system_view import Late, ProcessReport
from engine.pipeline.insight.lateness import LatenessWatch
from engine.telemetry.events import Occurrence, subscribe
from tests.support.pipeline_shop import POLICIES
from tests.support.pipeline_world import START, World

LANES = ("control", "looks", "index", "fast", "slow", "deliver")
HOUR = 3_600_000


def late(world: World, name: str) -> Late | None:
    uid = world.record(name).uid
    return next(iter(world.app.lateness.late(uid=uid)), None)


def clock_and_feed_work(world: World) -> None:
    """Let a clock, a feed and a process of the fleet be alive, as in a running installation."""
    for name in ("clock", "feed"):
        world.app.stores.leases.hold(name, "host:1", timedelta(hours=1))
    world.app.stores.processes.beat("host:1:all", "all", LANES, (), ProcessReport(threads=4))


def time_has_stood(world: World, hours: int = 1) -> None:
    """Let the system time at which campaign time was set lie back, so that all that is due has been so for long."""
    world.database["settings"].update_one({"_id": "campaign_time"}, {"$inc": {"moved_at": -hours * HOUR}})


@pytest.fixture
def owing(world: World) -> World:
    """A world with a campaign whose message is due since an hour and is not sent."""
    world.users(["u1", "u2"], plan="free")
    world.apply({"campaign": "hello", "audience": {"plan": "free"}})
    world.launch("hello")
    for kinds in (("plan",), ("process", "finish"), ()):
        world.tick()
        world.work(lambda kind, _, kinds=kinds: kind in kinds)  # type: ignore[misc]
    time_has_stood(world)
    return world


def set_rate(world: World, per_second: float) -> None:
    world.policies({**POLICIES, "rates": {"email": {"per_second": per_second}}})


def gate_closed(world: World) -> None:
    store = world.app.gate_store
    store.beat(Member("c", "clock", 0, 0.0), may_control=True)
    store.decide("c", GateState(), Gauge())
    view = store.view()
    assert view is not None
    store.override(Override(Hold.CLOSED, view.now + HOUR, "backup"))


def fleet_is_gone(world: World) -> None:
    world.app.stores.processes.gone("host:1:all")


def clock_is_gone(world: World) -> None:
    world.database["leases"].delete_many({"_id": "clock"})


def sends_at_the_limit(world: World) -> None:
    set_rate(world, 10)
    report = ProcessReport(4, 4, 0, {"deliveries.email.sent": 9.5}, {"deliveries.email.sent": 95})
    world.app.stores.processes.beat("host:1:all", "all", LANES, (), report)


def provider_refuses(world: World) -> None:
    report = ProcessReport(4, 4, 0, {"deliveries.email.retried": 9.5}, {"deliveries.email.retried": 95})
    world.app.stores.processes.beat("host:1:all", "all", LANES, (), report)


def sender_is_refused(world: World) -> None:
    world.app.stores.campaigns.set_stuck(world.record("hello").uid, StuckBy.SENDER, "530 authenticate first")


def slice_is_stuck(world: World) -> None:
    world.app.stores.campaigns.set_stuck(world.record("hello").uid, StuckBy.SLICE, "KeyError")


CAUSES: list[tuple[Callable[[World], Any], str, str]] = [
    (lambda world: world.steer("pause", "hello"), "paused", "it is paused (by hand"),
    (clock_is_gone, "no_clock", "no clock works"),
    (fleet_is_gone, "no_fleet", "no living process serves the lane deliver"),
    (gate_closed, "gate", "closed by a person until"),
    (sends_at_the_limit, "rate", "email is limited to 10 a second"),
    (provider_refuses, "provider", "100% of the answers are refusals"),
    (sender_is_refused, "provider", "530 authenticate first"),
    (slice_is_stuck, "stuck", "KeyError"),
    (lambda _: None, "queue", "slices wait in the lane deliver"),
]


@pytest.mark.parametrize(
    ("cause", "word", "says"), CAUSES, ids=[f"{word}-{n}" for n, (_, word, _) in enumerate(CAUSES)]
)
def test_a_late_campaign_says_what_holds_it_back(
    owing: World, cause: Callable[[World], Any], word: str, says: str
) -> None:
    clock_and_feed_work(owing)
    cause(owing)
    found = late(owing, "hello")
    assert found is not None
    assert (found.reason, found.workspace, found.campaign) == (word, "shop", "hello")
    assert says in found.why
    assert found.remedy
    assert 3_500 < found.by < 3_700


def test_what_is_due_for_less_than_late_after_is_not_late(owing: World) -> None:
    owing.profile(late_after="2h")
    owing.reload()
    assert late(owing, "hello") is None
    owing.profile(late_after="30m")
    owing.reload()
    assert late(owing, "hello") is not None


def test_a_campaign_that_has_nothing_to_do_is_not_late(world: World) -> None:
    world.users(["u1"], plan="free")
    world.start({"campaign": "hello", "audience": {"plan": "free"}})
    time_has_stood(world)
    assert late(world, "hello") is None


def test_messages_that_wait_for_their_day_are_not_late(world: World) -> None:
    world.users(["u1"], plan="free")
    world.start({"campaign": "hello", "audience": {"plan": "free"}, "messages": [{"name": "one", "wait": "9d"}]})
    time_has_stood(world)
    assert late(world, "hello") is None


def test_a_start_in_the_future_is_not_late_and_one_that_has_passed_is(world: World) -> None:
    world.apply({"campaign": "later", "kind": "one_off", "starts_at": "2030-01-01T00:00:00Z"})
    world.launch("later")
    time_has_stood(world)
    assert late(world, "later") is None
    world.database["campaigns"].update_one({"name": "later"}, {"$set": {"starts_at": START - HOUR}})
    found = late(world, "later")
    assert found is not None
    assert found.why.startswith("its launch for 1h")


def test_an_evaluation_that_is_due_and_not_made_is_late(world: World) -> None:
    world.users(["u1"], plan="free")
    world.start({"campaign": "hello", "audience": {"plan": "free"}, "messages": [{"name": "one", "wait": "9d"}]})
    world.advance("10d")
    time_has_stood(world)
    clock_and_feed_work(world)
    found = late(world, "hello")
    assert found is not None
    assert found.by == pytest.approx(3_600, abs=60)
    assert found.why.startswith(("evaluations for 1h", "a pass for 1h"))


def test_only_the_campaigns_that_somebody_asks_for_are_found(owing: World) -> None:
    assert [one.campaign for one in owing.app.lateness.late()] == ["hello"]
    assert owing.app.lateness.late(workspace="elsewhere") == []


def test_becoming_late_and_on_time_again_is_logged_once_each(owing: World) -> None:
    clock_and_feed_work(owing)
    told: list[Occurrence] = []
    end = subscribe(told.append)
    watch = LatenessWatch(owing.app.lateness.late, owing.app.system)
    watch.search()
    watch.search()
    for piece in owing.database["slices"].find({"state": "open"}, {"_id": 1}):
        owing.do("deliver", piece["_id"])
    owing.settle()
    watch.search()
    watch.search()
    end()
    said = [(one.name, one.fields["campaign"]) for one in told if one.name in ("campaign.late", "campaign.on_time")]
    assert said == [("campaign.late", "hello"), ("campaign.on_time", "hello")]
