"""Passes find time-dependent users by index or crossing set; a pass without candidates leaves nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.support.pipeline_world import START, World

DAY = 86_400_000
RARELY = {"reconcile": "900d"}
VIP = {"campaign": "vip", "audience": {"vip_until": {"older_than": "3d"}}, "entry": {"again_after": "300d"}}


@pytest.fixture
def rare(make_world: Callable[..., World]) -> World:
    """A world without full passes."""
    return make_world(**RARELY)


def kinds(world: World, name: str) -> Counter[str]:
    """Return the number of runs of each kind of a campaign."""
    return Counter(run["kind"] for run in world.runs(name))


def test_a_pass_without_candidates_leaves_no_run_and_no_slice(rare: World) -> None:
    rare.user("u", vip_until=START + 100 * DAY)
    rare.start(VIP)
    slices = rare.database["slices"].count_documents({})
    for _ in range(3):
        rare.after("1d")
    assert kinds(rare, "vip") == {"launch": 1}
    assert rare.database["slices"].count_documents({}) == slices


def test_a_user_who_matches_by_time_is_found_by_the_crossing_set(rare: World) -> None:
    rare.user("early", vip_until=START - DAY)
    rare.user("late", vip_until=START + 5 * DAY)
    rare.start(VIP)
    rare.after("1d")
    assert rare.sent() == []
    rare.after("1d")
    assert rare.sent() == [("early", "one")]
    rare.after("6d")
    assert rare.sent() == [("early", "one"), ("late", "one")]
    assert kinds(rare, "vip")["pass"] == 2


def test_an_enrolment_that_time_unmatches_ends_when_due(rare: World) -> None:
    rare.user("u", vip_until=START - DAY)
    rare.start({**VIP, "audience": {"vip_until": {"within": "3d"}}, "messages": [{"name": "one", "wait": "40d"}]})
    rare.after("3d")
    assert str(rare.enrolment("vip", "u").reason) == "unmatched"


def test_idle_enrolments_are_found_by_their_own_index(make_world: Callable[..., World]) -> None:
    world = make_world(**RARELY, inactivity="10d", slice_users=2)
    rule = {"name": "two", "wait": "1d", "when": {"age": {"gte": 99}}}
    world.users(["a", "b", "c"], plan="gold")
    world.start({"campaign": "idle", "messages": [{"name": "one"}, rule]})
    world.advance("5d")
    world.user("later", plan="gold")
    world.settle()
    world.after("5d")
    assert {user: str(world.enrolment("idle", user).reason) for user in "abc"} == dict.fromkeys("abc", "inactive")
    assert world.enrolment("idle", "later").active
    assert kinds(world, "idle")["idle"] == 1


def test_an_edited_audience_enrols_the_users_it_finds(rare: World) -> None:
    rare.user("u", plan="silver")
    rare.start({"campaign": "gold", "audience": {"plan": "gold"}})
    rare.apply({"campaign": "gold", "audience": {"plan": "silver"}})
    rare.settle()
    assert rare.sent() == [("u", "one")]


def test_a_full_pass_evaluates_everybody(make_world: Callable[..., World]) -> None:
    world = make_world(reconcile="2d")
    world.users(["a", "b"], plan="gold")
    series = [{"name": "one"}, {"name": "two", "wait": "30d"}]
    world.start({"campaign": "gold", "audience": {"plan": "gold"}, "messages": series})
    world.after("2d")
    (run,) = [run for run in world.runs("gold") if run["kind"] == "reconcile"]
    assert run["results"]["users"] == 2
    assert "missed" not in run["results"]
    world.database["users"].update_one({"u": "a"}, {"$set": {"a.plan": "lead"}})
    world.feed()
    world.database["looks"].delete_many({})  # as if the feed had lost the change
    world.advance("2d")
    world.settle(check=False)
    missed = [run["results"].get("missed", 0) for run in world.runs("gold") if run["kind"] == "reconcile"]
    assert missed == [0, 1]
