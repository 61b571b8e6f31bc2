"""Enrolments end, convert, and begin again."""

from __future__ import annotations

from collections.abc import Callable

from engine.clock import millis, parse_duration
from engine.domain.keys import user_key
from tests.support.pipeline_world import START, World

DAY = millis(parse_duration("1d"))
TWO = [{"name": "one"}, {"name": "two", "wait": "5d"}]
GOAL = {"event": {"name": "Order Completed"}, "within": "10d"}


def reason(world: World, name: str, user: str) -> str:
    return str(world.enrolment(name, user).reason)


def test_an_unmatched_user_exits_a_continuous_campaign(world: World) -> None:
    world.users(["goes", "stays"], plan="free")
    world.start({"campaign": "series", "audience": {"plan": "free"}, "messages": TWO})
    world.change("goes", plan="pro")
    world.after("1d")
    assert reason(world, "series", "goes") == "unmatched"
    assert world.enrolment("series", "goes").ended_at == START + DAY
    world.after("5d")
    assert world.sent() == [("goes", "one"), ("stays", "one"), ("stays", "two")]


def test_an_unmatched_user_remains_in_a_one_off_campaign(world: World) -> None:
    world.user("u", plan="free")
    world.start({"campaign": "hello", "kind": "one_off", "audience": {"plan": "free"}, "messages": TWO})
    world.change("u", plan="pro")
    world.after("5d")
    assert world.sent() == [("u", "one"), ("u", "two")]
    assert reason(world, "hello", "u") == "completed"


def test_time_alone_can_end_a_match(world: World) -> None:
    world.user("u", vip_until=START + 2 * DAY)
    audience = {"vip_until": {"within_next": "30d"}}
    world.start({"campaign": "series", "audience": audience, "messages": TWO})
    world.advance(to=START + 2 * DAY - 1)
    world.settle()
    assert world.enrolment("series", "u").active
    world.advance(to=START + 2 * DAY)
    world.settle()
    assert reason(world, "series", "u") == "unmatched"
    assert world.enrolment("series", "u").ended_at == START + 2 * DAY


def test_time_alone_can_make_a_match(world: World) -> None:
    world.user("u")
    world.event("u", "Order Completed", START)
    world.start({"campaign": "lapsed", "audience": {"last_order_at": {"older_than": "14d"}}})
    world.advance(to=START + 14 * DAY - 1)
    world.settle()
    assert world.enrolments("lapsed") == []
    world.advance(to=START + 14 * DAY)
    world.settle()
    assert world.sent() == [("u", "one")]


def test_an_exit_rule_ends_the_enrolment(world: World) -> None:
    world.user("u")
    world.start({"campaign": "series", "exit": {"when": {"age": {"gte": 18}}}, "messages": TWO})
    world.change("u", age=18)
    world.after("1d")
    assert reason(world, "series", "u") == "unmatched"


def test_a_queued_delivery_of_an_exiting_user_is_skipped_as_exited(world: World) -> None:
    world.user("u", plan="free")
    world.apply({"campaign": "series", "audience": {"plan": "free"}})
    world.launch("series")
    world.choose()
    world.change("u", plan="pro")
    world.advance("1d")
    for _ in range(4):
        world.tick()
        world.work(lambda kind, ident: kind != "deliver")
    assert world.ends("series", "u") == [("one", "skipped", "exited")]
    assert reason(world, "series", "u") == "unmatched"
    world.settle()
    assert world.sent() == []


def test_the_goal_ends_the_enrolment_and_counts_as_a_conversion(world: World) -> None:
    world.users(["buys", "waits"])
    world.start({"campaign": "series", "goal": GOAL, "messages": TWO})
    world.advance("2d")
    world.event("buys", "Order Completed", START + DAY)
    world.settle()
    assert reason(world, "series", "buys") == "goal"
    assert world.enrolment("series", "buys").converted_at == START + DAY
    world.after("3d")
    assert world.sent() == [("buys", "one"), ("waits", "one"), ("waits", "two")]
    assert world.app.plans.report(world.record("series")).counts.converted == 1


def test_a_goal_that_does_not_end_the_enrolment_still_counts(world: World) -> None:
    world.user("u")
    world.start({"campaign": "series", "goal": {**GOAL, "exits": False}, "messages": TWO})
    world.advance("1d")
    world.event("u", "Order Completed")
    world.settle()
    assert world.enrolment("series", "u").active
    world.after("5d")
    assert world.sent() == [("u", "one"), ("u", "two")]
    assert world.enrolment("series", "u").converted_at == START + DAY


def test_a_conversion_after_the_exit_counts_while_the_window_is_open(world: World) -> None:
    world.users(["in-time", "too-late"])
    world.start({"campaign": "series", "goal": GOAL})
    world.after("1d")
    assert {str(enrolment.reason) for enrolment in world.enrolments("series")} == {"completed"}
    world.advance(to=START + 10 * DAY)
    world.event("in-time", "Order Completed")
    world.settle()
    world.advance(to=START + 10 * DAY + 1)
    world.event("too-late", "Order Completed")
    world.settle()
    assert world.enrolment("series", "in-time").converted_at == START + 10 * DAY
    assert world.enrolment("series", "too-late").converted_at is None
    assert {str(enrolment.reason) for enrolment in world.enrolments("series")} == {"completed"}


def test_events_before_the_entry_never_count(world: World) -> None:
    world.user("u")
    world.event("u", "Order Completed", START)
    world.start({"campaign": "series", "goal": GOAL, "messages": TWO})
    world.after("1d")
    assert world.enrolment("series", "u").active
    assert world.enrolment("series", "u").converted_at is None


def test_a_user_who_already_meets_a_field_goal_does_not_enter(world: World) -> None:
    world.user("pro", plan="pro")
    world.user("free", plan="free")
    world.start({"campaign": "series", "goal": {"plan": "pro"}, "messages": TWO})
    assert [enrolment.user for enrolment in world.enrolments("series")] == [user_key("shop", "free")]


def test_a_user_enters_again_when_the_time_has_passed_without_having_left_the_audience(world: World) -> None:
    world.user("u")
    world.start({"campaign": "series", "entry": {"again_after": "10d"}})
    world.advance(to=START + 10 * DAY - 1)
    world.settle()
    assert len(world.enrolments("series")) == 1
    world.advance(to=START + 10 * DAY)
    world.settle()
    enrolments = world.enrolments("series")
    assert [(enrolment.entry, enrolment.entered_at) for enrolment in enrolments] == [(1, START), (2, START + 10 * DAY)]
    assert enrolments[0].due_at is None
    assert len(world.mails()) == 2


def test_a_user_enters_a_once_campaign_only_once(world: World) -> None:
    world.user("u", plan="free")
    world.start({"campaign": "series", "audience": {"plan": "free"}})
    world.change("u", plan="pro")
    world.after("1d")
    world.change("u", plan="free")
    world.after("300d")
    assert len(world.enrolments("series")) == 1


def test_an_inactive_user_exits_after_the_inactivity_window(make_world: Callable[..., World]) -> None:
    world = make_world(inactivity="10d")
    world.user("u")
    never = {"name": "two", "when": {"plan": "pro"}}
    world.start({"campaign": "series", "messages": [{"name": "one"}, never]})
    world.advance(to=START + 10 * DAY - 1)
    world.settle()
    assert world.enrolment("series", "u").active
    world.advance(to=START + 10 * DAY)
    world.settle()
    assert reason(world, "series", "u") == "inactive"


def test_a_shorter_inactivity_window_needs_no_change_of_enrolments(
    make_world: Callable[..., World],
) -> None:
    world = make_world(inactivity="40d")
    world.user("u")
    world.start({"campaign": "series", "messages": [{"name": "one"}, {"name": "two", "when": {"plan": "pro"}}]})
    world.profile(inactivity="5d")
    world.reload()
    world.after("5d")
    assert reason(world, "series", "u") == "inactive"


def test_a_deleted_user_leaves_and_is_not_written_to(world: World) -> None:
    world.users(["gone", "here"])
    world.start({"campaign": "series", "messages": TWO})
    world.app.stores.users.delete(user_key("shop", "gone"))
    world.after("5d")
    assert reason(world, "series", "gone") == "deleted"
    assert world.sent() == [("gone", "one"), ("here", "one"), ("here", "two")]
