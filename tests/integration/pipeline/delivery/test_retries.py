"""Refusals of a real SMTP server: retries with back-off, retries that are used up, failures and their replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from engine.domain.keys import user_suffix
from engine.errors import WrongCall
from engine.pipeline.control.replay import replay
from engine.pipeline.delivery.send_window import MOST_ATTEMPTS
from tests.integration.channels.smtp.test_channel_smtp import Sink, serving
from tests.support.pipeline_shop import hurry
from tests.support.pipeline_world import World


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def world(make_world: Callable[..., World], sink: Sink) -> Iterator[World]:
    """A world that sends to `sink` by SMTP."""
    with serving(sink) as port:
        smtp = {"transport": "smtp", "host": "127.0.0.1", "port": port, "starttls": "off", "timeout": "2s"}
        yield make_world(transport=smtp)


def outgoing(world: World, user: str) -> dict[str, Any]:
    (document,) = world.database["enrolments"].find({"user": {"$regex": f"/{user}$"}})
    delivery: dict[str, Any] = document["outgoing"]
    return delivery


def until_put_off(world: World, user: str) -> dict[str, Any]:
    """Step until the delivery of a user waits for its next attempt."""
    for _ in range(10):
        world.step()
        enrolments = world.enrolments("hello", user)
        if enrolments and enrolments[0].outgoing is not None and enrolments[0].outgoing.retry_at is not None:
            return outgoing(world, user)
    raise AssertionError("it was not put off")


def again(world: World, name: str = "hello", message: str | None = None) -> int:
    app = world.app
    return replay(app.stores.deliveries, app.commands, app.stores.wakeup, app.clock, world.record(name), message)


def test_a_temporary_refusal_is_retried_and_blocks_no_other(world: World, sink: Sink) -> None:
    sink.answers["RCPT"] = ["451 4.7.1 greylisted"]
    world.users(["a", "b"])
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    first = min(("a", "b"), key=user_suffix)
    refusal = until_put_off(world, first)
    assert (refusal["state"], refusal["attempts"]) == ("queued", 1)
    assert len(sink.taken) == 1
    for _ in range(3):
        world.step()
    assert len(sink.taken) == 1, "not before its time"
    assert world.state("hello") == "live"
    hurry(world.database)
    world.settle()
    assert len(sink.taken) == 2
    assert [delivery.attempts for delivery in world.enrolment("hello", first).settled] == [2]
    assert world.state("hello") == "finished"


def test_the_pause_doubles_with_each_attempt_until_the_attempts_are_used_up(world: World, sink: Sink) -> None:
    sink.answers["RCPT"] = ["451 no"] * 40
    world.user("u")
    world.apply({"campaign": "hello", "kind": "one_off", "messages": [{"name": "one"}, {"name": "two", "wait": "1d"}]})
    world.launch("hello")
    pauses: list[float] = []
    for attempt in range(1, MOST_ATTEMPTS):
        refusal = until_put_off(world, "u")
        assert refusal["attempts"] == attempt
        now = world.database.command("hello")["localTime"]
        pauses.append((refusal["retry_at"] - now).total_seconds())
        hurry(world.database)
        world.database["enrolments"].update_many({}, {"$unset": {"outgoing.retry_at": ""}})
    assert pauses[0] == pytest.approx(300, abs=30)
    assert all(later == pytest.approx(min(2 * pause, 14_400), rel=0.1) for pause, later in pairwise(pauses))
    world.settle()
    assert world.ends("hello", "u") == [("one", "failed", "retries_exhausted")]
    assert [delivery.attempts for delivery in world.enrolment("hello", "u").settled] == [MOST_ATTEMPTS]
    del sink.answers["RCPT"]
    world.after("1d")
    assert [end[:2] for end in world.ends("hello", "u")] == [("one", "failed"), ("two", "sent")]
    assert world.state("hello") == "finished"


def test_an_unreachable_server_costs_only_time(make_world: Callable[..., World], sink: Sink) -> None:
    with serving(sink) as port:
        pass
    smtp = {"transport": "smtp", "host": "127.0.0.1", "port": port, "starttls": "off", "timeout": "2s"}
    world = make_world(transport=smtp)
    world.users([f"u{i}" for i in range(3)])
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    for _ in range(4):
        world.step()
        hurry(world.database)
    assert world.state("hello") == "live"
    assert all(enrolment.outgoing is not None and not enrolment.settled for enrolment in world.enrolments("hello"))


def test_a_user_who_changes_between_attempts_is_evaluated_before_the_next(world: World, sink: Sink) -> None:
    sink.answers["RCPT"] = ["451 later"]
    world.user("u", plan="free")
    world.apply({"campaign": "hello", "audience": {"plan": "free"}})
    world.launch("hello")
    until_put_off(world, "u")
    world.change("u", plan="pro")
    world.advance("1d")
    for _ in range(3):
        world.step()
    assert world.ends("hello", "u") == [("one", "skipped", "exited")]
    hurry(world.database)
    world.settle()
    assert sink.taken == []


def test_a_permanent_failure_fails_alone_and_is_replayed_with_the_same_key(world: World, sink: Sink) -> None:
    sink.answers["RCPT"] = ["552 5.2.2 mailbox full"]
    world.users(["a", "b"])
    world.start({"campaign": "hello", "kind": "one_off"})
    counts = world.app.plans.report(world.record("hello")).counts
    assert counts.messages["one"].states == {"sent": 1, "failed": 1}
    assert world.state("hello") == "finished"
    assert again(world) == 1
    assert world.state("hello") == "draining"
    world.settle()
    assert world.state("hello") == "finished"
    counts = world.app.plans.report(world.record("hello")).counts
    assert counts.messages["one"].states == {"sent": 2}
    assert len(world.enrolments("hello")) == 2
    ids = [line for _, _, raw in sink.taken for line in raw.split(b"\r\n") if line.startswith(b"Tidegate-Delivery")]
    assert len(set(ids)) == 2
    assert again(world) == 0
    assert world.state("hello") == "finished"


def test_a_replay_of_one_message_leaves_the_other_failures_alone(world: World, sink: Sink) -> None:
    sink.answers["RCPT"] = ["550 no", "550 no"]
    world.user("u")
    world.start({"campaign": "hello", "kind": "one_off", "messages": [{"name": "one"}, {"name": "two"}]})
    assert [end[:2] for end in world.ends("hello", "u")] == [("one", "failed"), ("two", "failed")]
    assert again(world, message="two") == 1
    world.settle()
    assert sorted(end[:2] for end in world.ends("hello", "u")) == [("one", "failed"), ("two", "sent")]


def test_a_replay_sends_nothing_to_users_who_left(world: World, sink: Sink) -> None:
    sink.answers["RCPT"] = ["550 no"]
    world.user("u", plan="free")
    messages = [{"name": "one"}, {"name": "two", "wait": "5d"}]
    world.start({"campaign": "hello", "audience": {"plan": "free"}, "messages": messages})
    world.change("u", plan="pro")
    world.after("1d")
    assert again(world) == 0


def test_a_replay_of_an_active_enrolment_continues_the_series(world: World, sink: Sink) -> None:
    sink.answers["RCPT"] = ["550 no"]
    world.user("u")
    world.start({"campaign": "hello", "messages": [{"name": "one"}, {"name": "two", "wait": "5d"}]})
    world.after("1d")
    assert again(world) == 1
    world.settle()
    world.after("4d")
    assert [end[0] for end in world.ends("hello", "u")] == ["one"]
    world.after("1d")
    assert [end[:2] for end in world.ends("hello", "u")] == [("one", "sent"), ("two", "sent")]


def test_a_cancelled_campaign_and_a_draft_have_nothing_to_replay(world: World) -> None:
    world.apply({"campaign": "hello"})
    with pytest.raises(WrongCall):
        again(world)
    world.launch("hello")
    world.settle()
    with pytest.raises(WrongCall, match="the campaign has no message nope"):
        again(world, message="nope")
    world.steer("cancel", "hello")
    with pytest.raises(WrongCall):
        again(world)


def test_mail_from_is_the_bounce_address_and_from_the_author(make_world: Callable[..., World], sink: Sink) -> None:
    with serving(sink) as port:
        smtp = {"transport": "smtp", "host": "127.0.0.1", "port": port, "starttls": "off", "timeout": "2s"}
        world = make_world(transport={**smtp, "envelope_from": "bounces@default.example"})
        world.user("u")
        own = {"name": "two", "envelope_from": "own@bounces.example", "sender": "Sales <sales@shop.example>"}
        world.start({"campaign": "hello", "kind": "one_off", "messages": [{"name": "one"}, own]})
        world.after("1m")
    from_lines = [raw.split(b"\r\n")[0] for _, _, raw in sink.taken]
    assert [sender for sender, _, _ in sink.taken] == ["bounces@default.example", "own@bounces.example"]
    assert from_lines == [b"From: The Shop <news@shop.example>", b"From: Sales <sales@shop.example>"]
