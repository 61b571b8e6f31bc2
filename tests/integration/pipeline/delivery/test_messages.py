"""Which message a user gets, when, and why one is not sent."""

from __future__ import annotations

from engine.clock import format_instant, millis, parse_duration
from tests.support.pipeline_world import START, World

DAY = millis(parse_duration("1d"))
SERIES = [{"name": "one"}, {"name": "two", "wait": "3d"}, {"name": "three", "wait": "1d"}]


def test_a_wait_ends_to_the_millisecond(world: World) -> None:
    world.user("u")
    world.start({"campaign": "series", "messages": SERIES})
    world.advance(to=START + 3 * DAY - 1)
    world.settle()
    assert world.sent() == [("u", "one")]
    world.advance(to=START + 3 * DAY)
    world.settle()
    assert world.sent() == [("u", "one"), ("u", "two")]
    world.after("1d")
    assert world.sent() == [("u", "one"), ("u", "three"), ("u", "two")]
    assert str(world.enrolment("series", "u").reason) == "completed"


def test_a_wait_counts_from_the_last_settled_delivery(world: World) -> None:
    world.user("u")
    world.start({"campaign": "series", "messages": SERIES})
    world.after("5d")  # two days after message two was due
    world.advance(to=START + 6 * DAY - 1)
    world.settle()
    assert ("u", "three") not in world.sent()
    world.advance(to=START + 6 * DAY)
    world.settle()
    assert ("u", "three") in world.sent()


def test_a_first_message_may_wait_too(world: World) -> None:
    world.user("u")
    world.start({"campaign": "series", "messages": [{"name": "one", "wait": "12h"}]})
    assert world.sent() == []
    world.after("12h")
    assert world.sent() == [("u", "one")]


def test_a_message_whose_rule_fails_is_passed_over_and_may_follow_later(world: World) -> None:
    world.user("u", plan="free")
    messages = [{"name": "pro-only", "when": {"plan": "pro"}}, {"name": "all"}, {"name": "last", "wait": "5d"}]
    world.start({"campaign": "series", "messages": messages})
    assert world.sent() == [("u", "all")]
    world.change("u", plan="pro")
    world.after("1d")
    assert world.sent() == [("u", "all"), ("u", "pro-only")]
    world.after("5d")
    assert ("u", "last") in world.sent()
    assert str(world.enrolment("series", "u").reason) == "completed"


def test_no_later_message_overtakes_a_waiting_one(world: World) -> None:
    world.user("u")
    world.start({"campaign": "series", "messages": [{"name": "slow", "wait": "9d"}, {"name": "quick"}]})
    world.after("8d")
    assert world.sent() == []
    world.after("1d")
    assert world.sent() == [("u", "quick"), ("u", "slow")]
    assert [message for message, _, _ in world.ends("series", "u")] == ["slow", "quick"]


def test_a_message_that_is_too_late_is_skipped_and_the_next_follows(world: World) -> None:
    world.user("u")
    until = format_instant(START + 2 * DAY)
    messages = [{"name": "offer", "wait": "1d", "not_after": until}, {"name": "next"}]
    world.start({"campaign": "series", "messages": messages})
    world.after("3d")
    assert world.sent() == [("u", "next")]
    assert world.ends("series", "u") == [("offer", "skipped", "too_late"), ("next", "sent", None)]


def test_a_message_is_in_time_at_its_last_millisecond(world: World) -> None:
    world.user("u")
    until = format_instant(START + DAY)
    world.start({"campaign": "series", "messages": [{"name": "offer", "wait": "1d", "not_after": until}]})
    world.after("1d")
    assert world.sent() == [("u", "offer")]


def test_a_message_chosen_in_time_is_skipped_if_sent_too_late(world: World) -> None:
    world.user("u")
    until = format_instant(START + DAY)
    world.apply({"campaign": "offer", "kind": "one_off", "messages": [{"name": "one", "not_after": until}]})
    world.launch("offer")
    world.choose()
    assert world.enrolment("offer", "u").outgoing is not None
    world.after("2d")
    assert world.ends("offer", "u") == [("one", "skipped", "too_late")]
    assert world.sent() == []


def test_the_holdout_walks_the_same_path_and_gets_nothing(world: World) -> None:
    world.users([f"u{i}" for i in range(60)])
    world.start({"campaign": "series", "holdout": "50%", "messages": [{"name": "one"}, {"name": "two", "wait": "3d"}]})
    world.after("3d")
    held = {enrolment.user for enrolment in world.enrolments("series") if enrolment.holdout}
    assert 15 <= len(held) <= 45
    counts = world.app.plans.report(world.record("series")).counts
    assert counts.exited == {"completed": 60}
    assert counts.holdout == len(held)
    for name in ("one", "two"):
        assert counts.messages[name].states == {"sent": 60 - len(held), "skipped(holdout)": len(held)}
    assert len(world.mails()) == 2 * (60 - len(held))


def test_the_same_users_are_held_out_whatever_else_is_in_the_workspace(world: World) -> None:
    world.users([f"u{i}" for i in range(40)])
    world.start({"campaign": "series", "holdout": "30%", "entry": {"again_after": "2d"}})
    world.after("2d")
    by_user: dict[str, set[bool]] = {}
    for enrolment in world.enrolments("series"):
        by_user.setdefault(enrolment.user, set()).add(enrolment.holdout)
    assert len(world.enrolments("series")) == 80
    assert all(len(arms) == 1 for arms in by_user.values())


def test_a_user_without_an_address_is_skipped_and_stays_enrolled(world: World) -> None:
    world.user("none", email=None)
    world.user("bad", email="not an address")
    world.user("good")
    world.start({"campaign": "series", "messages": [{"name": "one"}, {"name": "two", "wait": "1d"}]})
    world.change("none", email="now@x.example")
    world.after("1d")
    assert world.ends("series", "none") == [("one", "skipped", "no_address"), ("two", "sent", None)]
    assert world.ends("series", "bad") == [("one", "skipped", "no_address"), ("two", "skipped", "no_address")]
    assert {str(enrolment.reason) for enrolment in world.enrolments("series")} == {"completed"}


def test_a_user_who_unsubscribes_before_sending_is_suppressed(world: World) -> None:
    world.users(["leaves", "goes", "stays"])
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    world.choose()
    world.change("leaves", unsubscribed=True)
    world.app.stores.users.delete(world.enrolment("hello", "goes").user)
    world.settle()
    assert world.sent() == [("stays", "one")]
    assert world.ends("hello", "leaves") == [("one", "skipped", "suppressed")]
    assert str(world.enrolment("hello", "leaves").reason) == "completed"
    assert str(world.enrolment("hello", "goes").reason) == "deleted"


def test_a_template_that_fails_for_one_user_fails_for_that_user_alone(world: World) -> None:
    world.user("zero", age=0)
    world.user("two", age=2)
    world.start(
        {
            "campaign": "hello",
            "kind": "one_off",
            "messages": [{"name": "one", "body": "{{ 10 | divided_by: user.age }}"}],
        }
    )
    assert world.ends("hello", "zero") == [("one", "failed", "template: one.body:1: divided_by: can't divide by 0")]
    assert world.sent() == [("two", "one")]
    assert world.mails()[0].text == "5"
