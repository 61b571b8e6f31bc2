"""Campaigns from draft to finished, one-off and continuous, at their start and end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from engine.clock import format_instant, millis, parse_duration
from engine.errors import IllegalTransition
from tests.support.pipeline_world import START, World

DAY = millis(parse_duration("1d"))


def test_a_one_off_campaign_goes_from_draft_to_finished_and_mails_each_user_once(world: World) -> None:
    world.users([f"u{i}" for i in range(5)])
    world.apply({"campaign": "hello", "kind": "one_off"})
    assert world.state("hello") == "draft"
    world.launch("hello")
    assert world.state("hello") == "scheduled"
    world.settle()
    assert world.state("hello") == "finished"
    assert world.sent() == [(f"u{i}", "one") for i in range(5)]
    assert {(str(enrolment.reason), enrolment.entry) for enrolment in world.enrolments("hello")} == {("completed", 1)}


def test_a_one_off_campaign_takes_its_audience_once(world: World) -> None:
    world.user("early")
    world.start({"campaign": "hello", "kind": "one_off", "messages": [{"name": "one"}, {"name": "two", "wait": "2d"}]})
    world.user("late")
    world.after("1d")
    world.after("1d")
    assert world.sent() == [("early", "one"), ("early", "two")]
    assert world.state("hello") == "finished"


def test_a_continuous_campaign_lets_users_enter_until_it_is_stopped_and_then_drains(world: World) -> None:
    world.user("first")
    world.start({"campaign": "series", "messages": [{"name": "one"}, {"name": "two", "wait": "3d"}]})
    assert world.state("series") == "live"
    world.user("second")
    world.after("1d")
    world.steer("stop", "series")
    world.user("third")
    world.settle()
    assert world.state("series") == "draining"
    world.after("2d")
    assert world.state("series") == "draining"
    world.after("1d")
    assert world.state("series") == "finished"
    assert world.sent() == [(user, name) for user in ("first", "second") for name in ("one", "two")]
    assert world.enrolment("series", "second").entered_at == START + DAY


def test_a_campaign_with_an_empty_audience_ends_at_once(world: World) -> None:
    world.start({"campaign": "nobody", "kind": "one_off"})
    assert world.state("nobody") == "finished"
    assert world.enrolments("nobody") == []


def test_a_scheduled_campaign_does_nothing_before_its_start(world: World) -> None:
    world.user("u")
    world.start({"campaign": "later", "kind": "one_off", "starts_at": format_instant(START + DAY)})
    assert (world.state("later"), world.sent()) == ("scheduled", [])
    world.advance(to=START + DAY - 1)
    world.settle()
    assert (world.state("later"), world.sent()) == ("scheduled", [])
    world.advance(to=START + DAY)
    world.settle()
    assert (world.state("later"), world.sent()) == ("finished", [("u", "one")])
    assert world.enrolment("later", "u").entered_at == START + DAY


def test_the_end_of_a_continuous_campaign_closes_its_intake_and_lets_enrolments_finish(world: World) -> None:
    world.user("in")
    ends = format_instant(START + 2 * DAY)
    world.start({"campaign": "summer", "ends_at": ends, "messages": [{"name": "one"}, {"name": "two", "wait": "3d"}]})
    world.advance(to=START + 2 * DAY - 1)
    world.settle()
    assert world.state("summer") == "live"
    world.user("too-late")
    world.advance(to=START + 2 * DAY)
    world.settle()
    assert world.state("summer") == "draining"
    world.after("1d")
    assert world.state("summer") == "finished"
    assert world.sent() == [("in", "one"), ("in", "two")]


def test_a_campaign_does_not_finish_while_work_is_open(make_world: Callable[..., World]) -> None:
    world = make_world(slice_users=2, batch={"candidates": [1]})
    world.users([f"u{i}" for i in range(5)])
    world.apply(
        {"campaign": "hello", "kind": "one_off", "messages": [{"name": "one"}, {"name": "two", "when": {"age": 1}}]}
    )
    world.launch("hello")
    seen: list[str] = []
    changes: Iterator[Callable[[], None]] = iter(
        [lambda: world.change("u1", age=1), lambda: world.advance("20d"), lambda: world.advance("30d")]
    )
    while world.state("hello") != "finished":
        world.feed()
        if not world.asked and not world.tick() and world.app.quiescence.what() is None:
            next(changes)()
        if world.asked:
            kind, ident, _ = world.asked.popleft()
            world.do(kind, ident)
        seen.append(world.state("hello"))
        enrolments = world.enrolments("hello")
        assert seen[-1] != "finished" or not any(enrolment.active or enrolment.outgoing for enrolment in enrolments)
        assert seen[-1] != "finished" or {run["state"] for run in world.runs("hello")} == {"decided"}
    assert sorted(set(seen), key=seen.index) == ["scheduled", "live", "finished"]
    exits = sorted(str(enrolment.reason) for enrolment in world.enrolments("hello"))
    assert exits == ["completed"] + ["inactive"] * 4


def test_every_run_is_decided_and_its_results_are_the_sum_of_its_slices(make_world: Callable[..., World]) -> None:
    world = make_world(slice_users=3)
    world.users([f"u{i}" for i in range(10)])
    world.start({"campaign": "hello", "kind": "one_off"})
    runs = world.runs("hello")
    assert {run["state"] for run in runs} == {"decided"}
    launch = next(run for run in runs if run["kind"] == "launch")
    assert launch["pieces"] == 4
    assert launch["results"].pop("read_us") > 0
    assert launch["results"].pop("timed") == 10
    assert launch["results"] == {"users": 10, "matched": 10, "entered": 10, "chosen": 10}
    assert sum(run.get("results", {}).get("entered", 0) for run in runs) == len(world.enrolments("hello"))


def test_a_campaign_cannot_be_launched_twice(world: World) -> None:
    world.start({"campaign": "hello", "kind": "one_off"})
    with pytest.raises(IllegalTransition):
        world.launch("hello")


def test_duplicate_late_or_lost_queue_messages_change_nothing(world: World) -> None:
    world.users([f"u{i}" for i in range(3)])
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    done: list[tuple[str, str]] = []
    for _ in range(40):
        world.tick()
        while world.asked:
            kind, ident, _ = world.asked.popleft()
            done.append((kind, ident))
            world.do(kind, ident)
            world.do(kind, ident)
    for kind, ident in done:
        world.do(kind, ident)
    world.settle()
    assert world.sent() == [(f"u{i}", "one") for i in range(3)]
    assert len(world.enrolments("hello")) == 3
