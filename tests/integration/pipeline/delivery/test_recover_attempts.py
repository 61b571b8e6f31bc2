"""Deliveries without a worker when their campaign is cancelled or paused: each is settled."""

from __future__ import annotations

from engine.pipeline.control.replay import replay
from tests.support.pipeline_shop import hurry
from tests.support.pipeline_world import World


def test_a_replayed_delivery_of_a_cancelled_campaign_is_skipped(world: World) -> None:
    """The enrolment has ended, so no evaluation handles it."""
    world.user("u", age=0)
    message = {"name": "one", "body": "{{ 10 | divided_by: user.age }}"}
    world.start({"campaign": "hello", "kind": "one_off", "messages": [message]})
    assert world.state("hello") == "finished"
    world.change("u", age=1)
    app = world.app
    assert replay(app.stores.deliveries, app.commands, app.stores.wakeup, app.clock, world.record("hello"), None) == 1
    world.steer("cancel", "hello")
    world.settle()
    assert world.ends("hello", "u") == [("one", "skipped", "cancelled")]
    assert world.mails() == []


def test_deliveries_marked_after_a_cancel_without_a_slice_are_recovered(world: World) -> None:
    """The sender slept between reading and marking, for longer than its lease."""
    world.user("u")
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    world.choose()
    (enrolment,) = world.enrolments("hello")
    world.steer("cancel", "hello")
    assert world.app.stores.deliveries.settle_and_mark([], [enrolment], "sender/dead|t") == {enrolment.id}
    world.settle()
    assert world.ends("hello", "u") == [("one", "skipped", "cancelled")]
    assert str(world.enrolment("hello", "u").reason) == "cancelled"
    assert world.mails() == []


def test_a_resume_recovers_the_deliveries_of_a_dead_sender(world: World) -> None:
    world.user("u")
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    world.choose()
    (enrolment,) = world.enrolments("hello")
    assert world.app.stores.deliveries.settle_and_mark([], [enrolment], "sender/dead|t") == {enrolment.id}
    world.steer("pause", "hello")
    hurry(world.database)
    world.settle(check=False)
    assert not list(world.database["slices"].find({"kind": "deliver", "state": "open"}))
    assert str(world.enrolment("hello", "u").outgoing.state) == "attempting"  # type: ignore[union-attr]
    world.steer("resume", "hello")
    world.settle()
    assert world.ends("hello", "u") == [("one", "sent", None)]
    assert len(world.mails()) == 1
