"""Conversions count until the goal's window closes, whatever the campaign's state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from engine.decisions.poison import DEATHS_TO_BURY
from engine.domain.campaign import FOR_EVER, LATE
from engine.domain.keys import suffix_of_user, user_key
from engine.domain.lifecycle import SliceState
from engine.pipeline.control.replay import replay
from engine.pipeline.evaluation.recheck_users import suspect_slice
from tests.support.pipeline_world import START, World

DAY = 86_400_000
ORDER = "Order Completed"
BUY = {"event": {"name": ORDER}, "within": "10d"}
KINDS = ("one_off", "continuous")


def converted(world: World, name: str) -> dict[str, int]:
    """Return who converted (user id), and how many days after the start."""
    enrolments = world.enrolments(name)
    return {
        enrolment.user.rsplit("/", 1)[1]: (enrolment.converted_at - START) // DAY
        for enrolment in enrolments
        if enrolment.converted_at
    }


def both(world: World, spec: Mapping[str, Any]) -> None:
    """Start the same campaign as `one_off` and as `continuous`; stop the latter, so that both finish."""
    for kind in KINDS:
        world.start({"campaign": kind, **spec, "kind": kind, "exit": {"unmatched": False}})
    world.steer("stop", "continuous")
    world.settle()


def alike(world: World) -> dict[str, int]:
    """Return who converted in both campaigns; check that they agree."""
    outcomes = [converted(world, kind) for kind in KINDS]
    assert outcomes[0] == outcomes[1]
    counts = [world.app.plans.report(world.record(kind)).counts for kind in KINDS]
    assert counts[0].converted == counts[1].converted == len(outcomes[0])
    assert counts[0].converted_holdout == counts[1].converted_holdout
    return outcomes[0]


def test_files_that_differ_only_in_kind_count_the_same_conversions(world: World) -> None:
    world.users(["soon", "last-moment", "too-late", "never", "arrives-late"], plan="free")
    both(world, {"goal": BUY})
    assert [world.state(kind) for kind in KINDS] == ["finished"] * 2
    assert {world.record(kind).converting_until for kind in KINDS} == {START + 10 * DAY}
    world.advance("2d")
    world.event("soon", ORDER)
    world.settle()
    assert alike(world) == {"soon": 2}
    world.event("soon", ORDER, START + 2 * DAY + 1)  # the first conversion remains
    world.advance(to=START + 10 * DAY)
    world.event("last-moment", ORDER)
    world.settle()
    world.advance(to=START + 10 * DAY + 1)
    world.event("too-late", ORDER)
    world.settle()
    world.after("20d")
    world.event("arrives-late", ORDER, START + 5 * DAY)  # the event is in the window and stored after it
    world.settle()
    assert alike(world) == {"soon": 2, "last-moment": 10, "arrives-late": 5}
    assert {
        (str(enrolment.reason), len(enrolment.settled)) for kind in KINDS for enrolment in world.enrolments(kind)
    } == {("completed", 1)}
    assert len(world.mails()) == 2 * 5


def test_a_goal_on_fields_and_one_on_either_are_counted_after_the_end(world: World) -> None:
    world.users(["pro", "buys", "late"], plan="free")
    both(world, {"goal": {"any": [{"event": {"name": ORDER}}, {"plan": "pro"}], "within": "10d"}})
    world.advance("3d")
    world.change("pro", plan="pro")
    world.event("buys", ORDER)
    world.settle()
    world.after("8d")
    world.change("late", plan="pro")
    world.settle()
    assert alike(world) == {"pro": 3, "buys": 3}


@pytest.mark.parametrize("jump", [False, True])
def test_time_alone_can_make_a_conversion_after_the_end(world: World, jump: bool) -> None:
    """Conversions count even if campaign time jumps past the end of the window."""
    world.user("met", vip_until=START + 12 * DAY)  # within the next five days from the 7th day on
    world.user("for-a-day", vip_until=START + 7 * DAY + DAY // 2)  # from the middle of the second day on
    world.user("after", vip_until=START + 20 * DAY)
    both(world, {"goal": {"vip_until": {"within_next": "5d"}, "within": "10d"}})
    for _ in range(0 if jump else 12):
        world.after("1d")
    if jump:
        world.after("90d")
    assert alike(world) == {"met": 7, "for-a-day": 2 if jump else 3}
    assert {str(enrolment.reason) for kind in KINDS for enrolment in world.enrolments(kind)} == {"completed"}


def test_time_alone_can_meet_a_goal_that_does_not_end_the_enrolment(world: World) -> None:
    world.user("u", vip_until=START + 12 * DAY)
    goal = {"vip_until": {"within_next": "5d"}, "within": "10d", "exits": False}
    world.start({"campaign": "series", "goal": goal, "messages": [{"name": "one"}, {"name": "two", "wait": "30d"}]})
    world.advance(to=START + 7 * DAY)
    world.settle()
    assert (world.enrolment("series", "u").active, converted(world, "series")) == (True, {"u": 7})


def test_an_event_from_before_a_jump_past_every_window_is_counted(world: World) -> None:
    world.users(["u", "v"])
    both(world, {"goal": BUY})
    world.event("u", ORDER, START + DAY)
    world.app.stores.times.advance(START + 400 * DAY, world.app.system.system_now())
    world.tick()  # a clock sees the window's end before the feed sees the event
    assert world.app.quiescence.what() == "the feed has not handled every change yet (does it run?)"
    world.settle()
    assert alike(world) == {"u": 1}
    assert world.closed(*KINDS)
    world.event("v", ORDER, START + DAY)
    world.settle()
    assert alike(world) == {"u": 1}


def test_a_campaign_costs_nothing_after_its_conversion_window(world: World) -> None:
    world.user("u")
    both(world, {"goal": BUY})
    world.advance(to=START + 10 * DAY + LATE)
    world.settle()
    assert {world.record(kind).converting_until for kind in KINDS} == {START + 10 * DAY}
    world.advance("1ms")
    world.settle()
    assert world.closed(*KINDS)
    registry = world.app.registry
    registry.refresh()
    assert registry.concerned("shop", {f"event:{ORDER}"}) == frozenset()
    assert not world.app.stores.campaigns.any_converting()


def test_a_campaign_without_a_goal_or_without_anybody_has_nothing_to_count(world: World) -> None:
    world.user("u")
    both(world, {})
    world.start({"campaign": "nobody", "kind": "continuous", "audience": {"plan": "x"}, "goal": BUY})
    world.steer("stop", "nobody")
    world.settle()
    assert {world.record(name).converting_until for name in (*KINDS, "nobody")} == {None}
    world.start({"campaign": "open", "kind": "one_off", "goal": {"event": {"name": ORDER}}})
    assert world.record("open").converting_until == FOR_EVER
    world.after("500d")
    world.event("u", ORDER)
    world.settle()
    assert converted(world, "open") == {"u": 500}


def test_the_holdout_converts_after_the_end_too(world: World) -> None:
    users = [f"u{number}" for number in range(12)]
    world.users(users)
    both(world, {"goal": BUY, "holdout": "50%"})
    world.advance("1d")
    for user in users:
        world.event(user, ORDER)
    world.settle()
    for kind in KINDS:
        counts = world.app.plans.report(world.record(kind)).counts
        assert (counts.converted, counts.converted_holdout) == (12, counts.holdout)
        assert 0 < counts.holdout < 12


@pytest.mark.parametrize("kind", KINDS)
def test_while_a_campaign_is_paused_conversions_are_counted_and_nothing_else_happens(world: World, kind: str) -> None:
    world.users(["inside", "done", "both"], plan="free")
    two = [{"name": "one", "when": {"plan": "free"}}, {"name": "two", "wait": "5d", "when": {"age": {"gte": 18}}}]
    goal = {"any": [{"event": {"name": ORDER}}, {"age": 99}], "within": "10d"}
    world.start({"campaign": "series", "kind": kind, "exit": {"when": {"plan": "gone"}}, "goal": goal, "messages": two})
    world.change("done", plan="gone")
    world.settle()
    assert not world.enrolment("series", "done").active
    world.steer("pause", "series")
    before = {user: world.enrolment("series", user) for user in ("inside", "done", "both")}
    world.advance("1d")
    world.event("done", ORDER)
    world.change("inside", age=99)
    world.change("both", age=18, plan="gone")
    world.user("new", plan="free")
    world.settle()
    assert converted(world, "series") == {"done": 1, "inside": 1}
    assert {user: world.enrolment("series", user).active for user in before} == {
        "inside": True,
        "done": False,
        "both": True,
    }
    assert world.enrolment("series", "inside").due_at == before["inside"].due_at
    assert world.enrolment("series", "inside").revision == before["inside"].revision
    assert len(world.enrolments("series")) == 3
    world.steer("resume", "series")
    world.settle()
    assert {user: str(world.enrolment("series", user).reason) for user in before} == {
        "inside": "goal", "done": "unmatched", "both": "unmatched"
    }  # fmt: skip
    assert len(world.enrolments("series")) == (4 if kind == "continuous" else 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cancelled_campaign_counts_conversions_of_its_enrolments(world: World, kind: str) -> None:
    world.users(["in-time", "too-late"])
    two = [{"name": "one"}, {"name": "two", "wait": "5d"}]
    world.start({"campaign": "series", "kind": kind, "goal": BUY, "messages": two})
    world.advance("1d")
    world.steer("cancel", "series")
    world.settle()
    world.advance("1d")
    world.event("in-time", ORDER)
    world.settle()
    world.advance("9d")
    world.event("too-late", ORDER)
    world.settle()
    assert converted(world, "series") == {"in-time": 2}
    assert {str(enrolment.reason) for enrolment in world.enrolments("series")} == {"cancelled"}
    assert len(world.mails()) == 2
    world.after("40d")
    assert world.closed("series")


def test_a_replay_drains_again_and_conversions_still_count(world: World) -> None:
    world.user("mended", age=0)
    world.user("other", age=1)
    message = {"name": "one", "body": "{{ 10 | divided_by: user.age }}"}
    world.start({"campaign": "hello", "kind": "one_off", "goal": BUY, "messages": [message]})
    app = world.app
    world.advance("1d")
    world.change("mended", age=2)
    assert replay(app.stores.deliveries, app.commands, app.stores.wakeup, app.clock, world.record("hello"), None) == 1
    assert world.state("hello") == "draining"
    world.event("other", ORDER)
    world.settle()
    assert (world.state("hello"), converted(world, "hello")) == ("finished", {"other": 1})
    world.advance("1d")
    world.event("mended", ORDER)
    world.settle()
    assert converted(world, "hello") == {"other": 1, "mended": 2}
    assert world.ends("hello", "mended") == [("one", "sent", None)]


def test_a_user_who_entered_again_converts_only_in_the_latest_enrolment(world: World) -> None:
    world.user("u")
    goal = {**BUY, "within": "20d"}
    world.start({"campaign": "series", "entry": {"again_after": "5d"}, "goal": goal})
    world.after("5d")
    world.steer("stop", "series")
    world.settle()
    assert (world.state("series"), len(world.enrolments("series"))) == ("finished", 2)
    world.after("10d")
    assert len(world.enrolments("series")) == 2
    world.event("u", ORDER)
    world.settle()
    assert [enrolment.converted_at for enrolment in world.enrolments("series")] == [None, START + 15 * DAY]


def test_a_user_deleted_after_the_end_keeps_earlier_conversions(world: World) -> None:
    world.users(["bought", "gone"], plan="free")
    both(world, {"goal": {"any": [{"event": {"name": ORDER}}, {"plan": "pro"}], "within": "10d"}})
    world.advance("1d")
    world.event("bought", ORDER)
    for user in ("bought", "gone"):
        world.app.stores.users.delete(user_key("shop", user))
    world.settle()
    assert alike(world) == {"bought": 1}
    assert {str(enrolment.reason) for kind in KINDS for enrolment in world.enrolments(kind)} == {"completed"}


@pytest.mark.parametrize("paused", [False, True])
def test_an_edited_goal_applies_to_users_who_left_too(make_world: Callable[..., World], paused: bool) -> None:
    world = make_world(reconcile="900d")
    world.users(["u", "v", "stays"])
    two = [{"name": "one"}, {"name": "two", "wait": "30d"}]
    series = {"campaign": "series", "kind": "one_off", "messages": two, "exit": {"when": {"age": {"gte": 18}}}}
    world.start({**series, "goal": {"plan": "pro", "within": "10d"}})
    world.change("u", age=18)
    world.change("v", age=18)
    world.after("12d")
    world.event("u", ORDER, START + DAY)
    world.event("v", ORDER, START + 12 * DAY)
    world.settle()
    assert converted(world, "series") == {}
    if paused:
        world.steer("pause", "series")
    world.apply({**series, "goal": BUY})
    if paused:
        world.settle()
        world.steer("resume", "series")
    world.settle()
    assert converted(world, "series") == {"u": 1}


def test_a_gap_in_the_feed_is_recovered_in_ended_campaigns(
    make_world: Callable[..., World],
) -> None:
    world = make_world()
    world.users(["u", "v"])
    both(world, {"goal": BUY})
    world.event("u", ORDER, START + 1)
    world.feed()
    world.database["looks"].delete_many({})  # as if the feed had never reported its changes
    world.advance("1d")
    world.app.change_feed.begin_again("a test")
    world.settle()
    assert alike(world) == {"u": 0}


def test_a_user_who_kills_every_worker_does_not_enter_an_ended_campaign(world: World) -> None:
    """Requests whose workers died become slices of one user, in every campaign concerned."""
    world.user("inside")
    both(world, {"goal": BUY})
    world.user("outside")
    for record in map(world.record, KINDS):
        for user in ("inside", "outside"):
            suspect = suspect_slice(record, suffix_of_user(user_key("shop", user)), "mark", world.now)
            world.app.stores.slices.add([replace(suspect, deaths=DEATHS_TO_BURY)])
            world.app.expired_leases.treat(suspect.id)
            stored = world.app.stores.slices.get(suspect.id)
            assert stored is not None
            assert stored.state is SliceState.DEAD
    world.settle()
    assert {enrolment.user for kind in KINDS for enrolment in world.enrolments(kind)} == {user_key("shop", "inside")}


def test_explain_shows_until_when_a_conversion_counts(world: World) -> None:
    world.users(["u", "v"])
    both(world, {"goal": BUY})
    world.event("v", ORDER, START + DAY)
    world.after("2d")
    by_name = {user: world.app.explainer.run(world.record("one_off"), user).now for user in "uv"}
    ended = "the enrolment has ended (completed): every message is settled; a user enters this campaign once"
    assert by_name == {"u": f"{ended}; a conversion is counted until 2026-01-11T00:00:00.000Z", "v": ended}
    world.after("9d")
    assert world.app.explainer.run(world.record("one_off"), "u").now == ended
