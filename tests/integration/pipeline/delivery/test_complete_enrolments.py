"""Enrolments that end in the write that settles their last delivery, exactly as an evaluation would end them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from engine.domain.keys import user_key
from engine.domain.work import SliceKind
from engine.pipeline.control.replay import replay
from engine.pipeline.delivery import send_window
from engine.pipeline.delivery.complete_enrolments import CompletionOnSettle
from tests.support.pipeline_shop import hurry
from tests.support.pipeline_world import World

ONE = [{"name": "one"}]
TWO = [{"name": "one"}, {"name": "two", "wait": "5d"}]
GOAL = {"event": {"name": "Order Completed"}, "within": "10d"}
DIVIDES = [{"name": "one", "body": "{{ 10 | divided_by: user.age }}"}]
HELLO: dict[str, Any] = {"campaign": "hello", "kind": "one_off"}
OFTEN: dict[str, Any] = {"campaign": "hello", "kind": "continuous"}

PLAYS: dict[str, tuple[dict[str, Any], bool]] = {
    "one message": (HELLO, True),
    "a series": (HELLO | {"messages": TWO}, True),
    "a message that fails": (HELLO | {"messages": DIVIDES}, True),
    "a message with a rule": (HELLO | {"messages": [{"name": "one", "when": {"plan": "pro"}}, {"name": "two"}]}, True),
    "everybody, again and again": (OFTEN | {"entry": {"again_after": "2d"}}, True),
    "a goal": (HELLO | {"goal": GOAL}, False),
    "a goal that nobody leaves for": (HELLO | {"goal": GOAL | {"exits": False}}, False),
    "an exit rule": (HELLO | {"exit": {"when": {"plan": "free"}}, "messages": TWO}, False),
    "an audience that is left": (OFTEN | {"audience": {"plan": "free"}}, False),
}


def people(world: World) -> None:
    """Create users of all kinds: without an address, unsubscribed, with orders, pro or free."""
    for i in range(12):
        world.user(f"u{i}", plan="pro" if i % 3 else "free", age=i % 4)
    for i in (1, 2):
        world.database["users"].update_one({"_id": user_key("shop", f"u{i}")}, {"$unset": {"email": ""}})
    world.database["users"].update_one({"_id": user_key("shop", "u3")}, {"$set": {"unsubscribed": True}})


def play(world: World, campaign: dict[str, Any]) -> list[dict[str, Any]]:
    """Play a campaign; return the final enrolment documents without keys and versions."""
    people(world)
    world.apply(campaign)
    world.launch("hello")
    world.choose()
    world.event("u5", "Order Completed", world.now + 1)
    world.advance("1h")
    world.settle()
    for _ in range(3):
        world.after("2d")
    world.steer("stop", "hello") if campaign["kind"] == "continuous" else None
    world.after("1d")
    documents = world.database["enrolments"].find().sort([("user", 1), ("entry", 1)])
    return [
        {key: document for key, document in raw.items() if key not in ("_id", "campaign", "version")}
        for raw in documents
    ]


@pytest.mark.parametrize("name", PLAYS)
def test_completion_at_settling_and_by_evaluation_leave_the_same_document(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    campaign, completes = PLAYS[name]
    at_once = make_world()
    result = play(at_once, campaign)
    monkeypatch.setattr(CompletionOnSettle, "may_complete", lambda *_: False)
    later = make_world()
    assert result == play(later, campaign)
    assert {raw["state"] for raw in result} >= {"ended"}
    due = [sum(run["kind"] == "due" for run in world.runs("hello")) for world in (at_once, later)]
    assert (due[0] < due[1]) == completes


def test_a_newsletter_makes_no_due_run(world: World) -> None:
    people(world)
    world.start(HELLO | {"holdout": "30%"})
    assert {run["kind"] for run in world.runs("hello")} == {"launch"}
    assert {str(enrolment.reason) for enrolment in world.enrolments("hello")} == {"completed"}
    assert world.state("hello") == "finished"


def meanwhile(monkeypatch: pytest.MonkeyPatch, point: str, happens: Callable[[], object]) -> None:
    """Act once, when a sender passes a failpoint."""
    left = [happens]

    def passed(name: str, about: Iterable[str] = ()) -> None:
        if name == point and left:
            left.pop()()

    monkeypatch.setattr(send_window, "passage", passed)


@pytest.mark.parametrize("point", ["deliver.marked", "deliver.sent"])
def test_a_message_that_is_added_while_the_last_one_is_sent_still_follows(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    world.user("u")
    meanwhile(monkeypatch, point, lambda: world.apply(HELLO | {"messages": TWO}))
    world.start(HELLO | {"messages": ONE})
    assert world.enrolment("hello", "u").active
    world.after("5d")
    assert world.sent() == [("u", "one"), ("u", "two")]


def test_the_run_of_an_edit_that_met_an_attempt_relies_on_its_settling(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edit's run is over before the delivery settles: only the settlement can make the enrolment due again."""
    world.user("u")

    def edited() -> None:
        world.apply(HELLO | {"messages": TWO})
        other = world.open()
        for _ in range(6):
            other.clock_tick.run()
            for kind, ident, _ in list(world.asked):
                if kind in ("plan", "process", "finish"):
                    world.do(kind, ident)
        assert not world.record("hello").evaluation_owed
        other.close()

    meanwhile(monkeypatch, "deliver.sent", edited)
    world.start(HELLO | {"messages": ONE})
    world.after("5d")
    assert world.sent() == [("u", "one"), ("u", "two")]


@pytest.mark.parametrize(("command", "reason"), [("pause", "completed"), ("cancel", "cancelled")])
def test_a_command_during_the_last_message_is_obeyed(
    world: World, monkeypatch: pytest.MonkeyPatch, command: str, reason: str
) -> None:
    world.user("u")
    meanwhile(monkeypatch, "deliver.sent", lambda: world.steer(command, "hello"))
    world.start(HELLO)
    if command == "pause":
        assert world.enrolment("hello", "u").active
        world.steer("resume", "hello")
        world.settle()
    assert str(world.enrolment("hello", "u").reason) == reason
    assert world.ends("hello", "u") == [("one", "sent", None)]


def test_a_user_deleted_before_the_last_message_exits_as_deleted(world: World) -> None:
    world.users(["goes", "stays"])
    world.apply(HELLO)
    world.launch("hello")
    world.choose()
    world.app.stores.users.delete(user_key("shop", "goes"))
    world.tick()
    world.work(lambda kind, ident: kind == "deliver")
    world.settle()
    assert {user: str(world.enrolment("hello", user).reason) for user in ("goes", "stays")} == {
        "goes": "deleted",
        "stays": "completed",
    }


def test_a_replayed_delivery_leaves_the_end_of_its_enrolment_as_it_was(world: World) -> None:
    world.user("u", age=0)
    world.start(HELLO | {"messages": DIVIDES})
    before = world.enrolment("hello", "u")
    assert (str(before.reason), world.state("hello")) == ("completed", "finished")
    world.change("u", age=1)
    world.after("3d")
    app = world.app
    assert replay(app.stores.deliveries, app.commands, app.stores.wakeup, app.clock, world.record("hello"), None) == 1
    world.settle()
    after = world.enrolment("hello", "u")
    assert world.ends("hello", "u") == [("one", "sent", None)]
    assert (after.reason, after.ended_at, after.due_at) == (before.reason, before.ended_at, None)


@pytest.mark.parametrize(("deleted", "reason"), [(False, "completed"), (True, "deleted")])
def test_deliveries_of_a_dead_sender_complete_when_recovered(world: World, deleted: bool, reason: str) -> None:
    world.user("u")
    world.apply(HELLO)
    world.launch("hello")
    world.choose()
    world.killed("deliver.sent")
    world.buried()
    assert [str(enrolment.outgoing and enrolment.outgoing.state) for enrolment in world.enrolments("hello")] == [
        "attempting"
    ]
    if deleted:
        world.app.stores.users.delete(user_key("shop", "u"))
    hurry(world.database)
    world.settle()
    assert (str(world.enrolment("hello", "u").reason), world.ends("hello", "u")) == (reason, [("one", "sent", None)])
    assert len(world.mails()) == 1
    assert any(run["kind"] == "due" for run in world.runs("hello")) == deleted


def due_runs(world: World) -> int:
    return sum(run["kind"] == "due" for run in world.runs("hello"))


def bring_up(world: World) -> None:
    """Make every enrolment due; tick once and do everything it enqueues except sending."""
    world.database["enrolments"].update_many({}, {"$set": {"due_at": world.now}})
    world.tick()
    world.work(lambda kind, ident: kind != "deliver")


def flowing(world: World, monkeypatch: pytest.MonkeyPatch, *, stands: bool = False) -> None:
    """Start a campaign with an open delivering slice and one due run; campaign time runs unless it `stands`."""
    world.users([f"u{i}" for i in range(4)])
    world.apply(HELLO | {"goal": GOAL})
    world.launch("hello")
    world.choose()
    monkeypatch.setattr(world.app.clock_tick, "time", lambda: (world.now, stands))
    monkeypatch.setattr("engine.pipeline.scheduler.tick.ASK_AGAIN", 0.0)
    bring_up(world)
    world.tick()
    world.work(lambda kind, ident: kind != "deliver")
    assert world.app.stores.slices.campaigns_with_open(SliceKind.DELIVER)
    assert due_runs(world) == 1


def test_settled_enrolments_are_evaluated_together_while_deliveries_flow(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.pipeline.scheduler.tick.DUE_EVERY", 1e9)
    flowing(world, monkeypatch)
    bring_up(world)
    assert due_runs(world) == 1
    for raw in list(world.database["slices"].find({"kind": "deliver", "state": "open"})):
        world.do("deliver", raw["_id"])
    world.settle()
    assert due_runs(world) == 2
    assert {str(enrolment.reason) for enrolment in world.enrolments("hello")} == {"completed"}


@pytest.mark.parametrize(("every", "stands"), [(0.0, False), (1e9, True)])
def test_due_enrolments_wait_at_most_the_limit_and_never_if_campaign_time_stands(
    world: World, monkeypatch: pytest.MonkeyPatch, every: float, stands: bool
) -> None:
    monkeypatch.setattr("engine.pipeline.scheduler.tick.DUE_EVERY", every)
    flowing(world, monkeypatch, stands=stands)
    bring_up(world)
    assert due_runs(world) == 2
