"""Pause, resume, stop and cancel act within a batch, and lose or double nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from engine.clock import millis, parse_duration
from engine.domain.work import RunKind
from engine.errors import IllegalTransition
from engine.failpoints import arm
from engine.telemetry import events
from tests.support.pipeline_shop import hurry
from tests.support.pipeline_world import START, World

DAY = millis(parse_duration("1d"))
TWO = [{"name": "one"}, {"name": "two", "wait": "5d"}]


@contextmanager
def at_first(event: str, act: Callable[[], object]) -> Iterator[list[str]]:
    """Act at the first such event, in the emitting thread; yield the names of all events."""
    reported: list[str] = []

    def hear(occurrence: events.Occurrence) -> None:
        reported.append(occurrence.name)
        if occurrence.name == event and reported.count(event) == 1:
            act()

    end = events.subscribe(hear)
    try:
        yield reported
    finally:
        end()


@pytest.fixture
def small(make_world: Callable[..., World]) -> World:
    """A world with batches of one user, in one slice."""
    return make_world(batch={"candidates": [1]})


def test_a_pause_acts_within_a_batch_and_a_resume_continues_there(small: World) -> None:
    small.users([f"u{i}" for i in range(6)])
    small.apply({"campaign": "hello", "kind": "one_off"})
    small.launch("hello")
    with at_first("batch.decided", lambda: small.steer("pause", "hello")) as events:
        small.settle()
    assert events.count("batch.decided") == 1
    assert len(small.enrolments("hello")) == 1
    assert small.sent() == []
    (slice_,) = small.database["slices"].find({"kind": "candidates", "state": "open"})
    assert "lease" not in slice_
    assert slice_["cursor"] == small.enrolments("hello")[0].suffix
    small.advance("2d")
    small.settle()
    assert len(small.enrolments("hello")) == 1
    small.steer("resume", "hello")
    small.settle()
    assert small.sent() == [(f"u{i}", "one") for i in range(6)]
    assert {enrolment.entered_at for enrolment in small.enrolments("hello")} == {START}, "a launch run keeps its as_of"
    assert [run["kind"] for run in small.runs("hello")].count("launch") == 1


def test_a_pause_holds_back_queued_deliveries(world: World) -> None:
    world.users(["a", "b"])
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    world.choose()
    world.steer("pause", "hello")
    world.settle()
    assert world.sent() == []
    assert {enrolment.outgoing.state for enrolment in world.enrolments("hello") if enrolment.outgoing} == {"queued"}
    world.steer("resume", "hello")
    world.settle()
    assert world.sent() == [("a", "one"), ("b", "one")]


def test_a_resume_drops_unclaimed_slices_and_evaluates_everybody_again(small: World) -> None:
    small.users(["a", "b"])
    small.start({"campaign": "series", "messages": TWO})
    small.user("new")
    small.advance("5d")
    small.tick()
    small.work(lambda kind, ident: kind == "plan")
    before = {run["_id"]: run["kind"] for run in small.runs("series") if run["state"] == "running"}
    assert sorted(before.values()) == ["due", "reconcile"]
    small.steer("pause", "series")
    small.settle()
    small.steer("resume", "series")
    small.tick()
    states = {run["_id"]: run["state"] for run in small.runs("series")}
    assert {states[run] for run in before} == {"dropped"}
    assert small.database["slices"].count_documents({"run": {"$in": list(before)}, "state": "dropped"}) == 2
    small.settle()
    assert small.sent() == [("a", "one"), ("a", "two"), ("b", "one"), ("b", "two"), ("new", "one")]


def test_a_user_who_changed_during_a_pause_is_evaluated_at_the_resume(world: World) -> None:
    world.user("u", plan="free")
    world.start({"campaign": "series", "audience": {"plan": "free"}, "messages": TWO})
    world.steer("pause", "series")
    world.change("u", plan="pro")
    world.user("new", plan="free")
    world.settle()
    assert world.enrolment("series", "u").active
    world.steer("resume", "series")
    world.settle()
    assert str(world.enrolment("series", "u").reason) == "unmatched"
    assert ("new", "one") in world.sent()


def test_a_campaign_can_be_paused_and_resumed_again_while_campaign_time_stands(world: World) -> None:
    world.user("u")
    world.start({"campaign": "series", "messages": TWO})
    for name in ("v", "w"):
        world.steer("pause", "series")
        world.user(name)
        world.settle()
        assert name not in dict(world.sent())
        world.steer("resume", "series")
        world.settle()
        assert name in dict(world.sent())


def test_inactivity_counts_from_the_resume(make_world: Callable[..., World]) -> None:
    world = make_world(inactivity="10d")
    world.user("u")
    world.start({"campaign": "series", "messages": [{"name": "one"}, {"name": "two", "when": {"plan": "pro"}}]})
    world.after("5d")
    world.steer("pause", "series")
    world.after("20d")
    world.steer("resume", "series")
    world.settle()
    world.advance(to=START + 35 * DAY - 1)
    world.settle()
    assert world.enrolment("series", "u").active
    world.advance(to=START + 35 * DAY)
    world.settle()
    assert str(world.enrolment("series", "u").reason) == "inactive"


def test_a_campaign_may_end_while_it_is_paused(world: World) -> None:
    world.user("u")
    world.start({"campaign": "series", "messages": TWO, "ends_at": "2026-01-03"})
    world.steer("pause", "series")
    world.user("late")
    world.after("4d")
    assert world.state("series") == "paused"
    world.steer("resume", "series")
    world.after("1d")
    assert world.state("series") == "finished"
    assert world.sent() == [("u", "one"), ("u", "two")]


def test_a_paused_campaign_that_is_stopped_drains(world: World) -> None:
    world.user("u")
    world.start({"campaign": "series", "messages": TWO})
    world.steer("pause", "series")
    world.steer("stop", "series")
    world.user("late")
    world.after("5d")
    assert world.state("series") == "finished"
    assert world.sent() == [("u", "one"), ("u", "two")]


def test_a_stop_during_the_launch_enrols_no_further_user(small: World) -> None:
    small.users([f"u{i}" for i in range(4)])
    small.apply({"campaign": "hello", "kind": "one_off"})
    small.launch("hello")
    with at_first("batch.decided", lambda: small.steer("stop", "hello")):
        small.settle()
    assert small.state("hello") == "finished"
    assert len(small.sent()) == 1


def test_a_cancel_ends_every_enrolment_and_skips_queued_deliveries(world: World) -> None:
    world.users(["a", "b"])
    world.start({"campaign": "series", "messages": TWO})
    world.user("c")
    world.advance("1d")
    world.choose()
    assert world.enrolment("series", "c").outgoing is not None
    world.steer("cancel", "series")
    world.settle()
    assert {str(enrolment.reason) for enrolment in world.enrolments("series")} == {"cancelled"}
    assert world.ends("series", "c") == [("one", "skipped", "cancelled")]
    assert world.sent() == [("a", "one"), ("b", "one")]
    world.after("30d")
    assert world.state("series") == "cancelled"
    assert len(world.mails()) == 2


def test_a_cancel_waits_for_attempting_deliveries(world: World) -> None:
    world.user("u")
    world.apply({"campaign": "series", "messages": TWO})
    world.launch("series")
    world.choose()
    world.killed("deliver.sent")
    assert world.enrolment("series", "u").outgoing is not None
    assert world.enrolment("series", "u").outgoing.state == "attempting"  # type: ignore[union-attr]
    world.steer("cancel", "series")
    for _ in range(3):
        world.step()
    assert world.enrolment("series", "u").active, "its sender may be alive"
    world.buried()
    hurry(world.database)
    world.settle()
    assert world.ends("series", "u") == [("one", "sent", None)]
    assert str(world.enrolment("series", "u").reason) == "cancelled"


def test_a_cancel_ends_enrolments_that_were_marked_and_not_sent(world: World) -> None:
    world.user("u")
    world.apply({"campaign": "series", "messages": TWO})
    world.launch("series")
    world.choose()
    arm("deliver.marked=raise")
    try:
        world.step()
    finally:
        arm("")
    world.steer("cancel", "series")
    for _ in range(3):
        world.step()
    hurry(world.database)
    world.settle()
    assert world.sent() == []
    assert world.ends("series", "u") == [("one", "skipped", "cancelled")]
    assert str(world.enrolment("series", "u").reason) == "cancelled"


def test_a_cancel_ends_a_user_who_enters_concurrently(small: World) -> None:
    small.users([f"u{i}" for i in range(4)])
    small.apply({"campaign": "hello", "kind": "one_off"})
    small.launch("hello")
    enter = small.app.stores.enrolments.enter_alike

    def cancelled_first(*enrolments: object) -> set[str]:
        small.app.stores.enrolments.enter_alike = enter  # type: ignore[method-assign]
        small.steer("cancel", "hello")
        other = small.open()  # another process ends every enrolment before this one writes
        try:
            for run in other.stores.runs.undecided():
                other.run_planner.run(run.id)
                for slice_ in other.stores.slices.of_run(run.id) if run.kind is RunKind.STAYS else ():
                    other.slice_decider.run(slice_.id)
        finally:
            other.close()
        return enter(*enrolments)  # type: ignore[arg-type]

    small.app.stores.enrolments.enter_alike = cancelled_first  # type: ignore[method-assign,assignment]
    small.settle()
    assert small.state("hello") == "cancelled"
    assert {str(enrolment.reason) for enrolment in small.enrolments("hello")} == {"cancelled"}
    assert small.sent() == []


def test_a_command_that_the_state_forbids_is_refused_and_changes_nothing(world: World) -> None:
    world.user("u")
    world.apply({"campaign": "hello", "kind": "one_off"})
    for verb, done in (("pause", "paused"), ("stop", "stopped"), ("resume", "resumed")):
        with pytest.raises(IllegalTransition, match=f"^shop/hello is draft: it cannot be {done}$"):
            world.steer(verb, "hello")
    world.launch("hello")
    world.settle()
    for verb, done in (("pause", "paused"), ("cancel", "cancelled"), ("stop", "stopped"), ("resume", "resumed")):
        with pytest.raises(IllegalTransition, match=f"^shop/hello is finished: it cannot be {done}$") as refused:
            world.steer(verb, "hello")
        assert refused.value.remedy == "to run it again, give its file another campaign: name"
    with pytest.raises(IllegalTransition, match=r"^shop/hello is finished: it cannot be launched$"):
        world.launch("hello")
    assert world.state("hello") == "finished"


def test_a_draft_and_a_scheduled_campaign_can_be_cancelled(world: World) -> None:
    world.user("u")
    world.apply({"campaign": "draft"})
    world.apply({"campaign": "scheduled", "starts_at": "2027-01-01"})
    world.launch("scheduled")
    for name in ("draft", "scheduled"):
        world.steer("cancel", name)
    world.after("1d")
    assert {world.state(name) for name in ("draft", "scheduled")} == {"cancelled"}
    assert world.sent() == []
