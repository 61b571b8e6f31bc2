"""Batches, slices, ids and other campaigns do not change the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.pipeline_world import World

SIZES = [(1000, 20_000), (7, 20_000), (7, 11), (3, 1)]
HOSTILE = [
    "a/b",
    "../../etc/passwd",
    "/",
    "//",
    "$set",
    "$$NOW",
    "a.b",
    ".",
    "..",
    " leading and trailing ",
    "with space",
    "new\nline",
    "tab\t",
    "nul\0",
    "ünïcode",
    "名前",
    "🙂",
    "%2F",
    "a%2Fb",
    "{{ user }}",
    "'; drop",
    '"quoted"',
    "x@example.org",
    "UPPER",
    "upper",
    "0",
    "0001",
    "-",
    "g",
    "~",
    "\u202eright",
    "x" * 300,
    "é" * 100,
]


def life(world: World) -> None:
    """Play a scenario that uses every rule: 30 users, two campaigns, twelve days."""
    everybody = [f"u{i}" for i in range(30)]
    world.users(everybody[:24], plan="free")
    world.start(
        {
            "campaign": "series",
            "audience": {"plan": "free"},
            "entry": {"again_after": "4d"},
            "goal": {"event": {"name": "Order Completed"}, "within": "6d"},
            "holdout": "20%",
            "messages": [
                {"name": "one"},
                {"name": "young", "when": {"age": {"lt": 20}}},
                {"name": "two", "wait": "3d"},
            ],
        }
    )
    world.start({"campaign": "hello", "kind": "one_off", "messages": [{"name": "one"}, {"name": "two", "wait": "2d"}]})
    for day in range(12):
        world.advance("1d")
        for number, user in enumerate(everybody):
            if number % 12 == day and number < 24:
                world.change(user, plan="pro" if number % 2 else "free", age=number)
            if number % 17 == day:
                world.event(user, "Order Completed")
        if day == 5:
            world.users(everybody[24:], plan="free")
            world.app.stores.users.delete(world.enrolments("series")[0].user)
        world.settle()


def enrolments_and_deliveries(world: World) -> dict[tuple[str, str, int], Any]:
    """Return everything about every enrolment that a user or a report could see."""
    return {
        (name, enrolment.user, enrolment.entry): (
            enrolment.state,
            enrolment.reason,
            enrolment.entered_at,
            enrolment.ended_at,
            enrolment.converted_at,
            enrolment.due_at,
            [(delivery.message, delivery.state, delivery.reason, delivery.at) for delivery in enrolment.settled],
        )
        for name in ("series", "hello")
        for enrolment in world.enrolments(name)
    }


@pytest.mark.long(seconds=30)
def test_slices_and_batches_of_all_sizes_give_the_same_result(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for batch, slice_users in SIZES:
        uids = iter(["a1", "b2"])  # the uid seeds the arms
        monkeypatch.setattr("engine.pipeline.control.campaign_commands.token_hex", lambda _, uids=uids: next(uids))
        world = make_world(batch={"candidates": [batch]}, slice_users=slice_users, in_flight=100)
        life(world)
        named = {record.name: record.uid for record in world.app.stores.campaigns.everything()}
        results.append((enrolments_and_deliveries(world), {name: world.state(name) for name in named}))
    for result in results[1:]:
        assert {key: value for key, value in result[0].items() if results[0][0].get(key) != value} == {}
        assert result == results[0]
    reasons = {str(enrolment[1]) for enrolment in results[0][0].values()}
    assert {"goal", "unmatched", "completed", "deleted", "None"} <= reasons


@pytest.mark.parametrize("batch", [1, 1000])
def test_any_user_id_works(make_world: Callable[..., World], batch: int) -> None:
    world = make_world(batch={"candidates": [batch]}, slice_users=5)
    world.users(HOSTILE)
    for user in HOSTILE:
        world.event(user, "Order Completed")
    world.advance("1s")
    world.start(
        {
            "campaign": "hello",
            "audience": {"event": {"name": "Order Completed", "within": "1d"}},
            "messages": [{"name": "one"}, {"name": "two", "wait": "1d"}],
            "exit": {"unmatched": False},
        }
    )
    world.after("1d")
    assert {enrolment.user: len(enrolment.settled) for enrolment in world.enrolments("hello")} == {
        enrolment.user: 2 for user in HOSTILE for enrolment in world.enrolments("hello", user)
    }
    assert len(world.enrolments("hello")) == len(HOSTILE)
    assert len(world.mails()) == 2 * len(HOSTILE)
    assert {str(enrolment.reason) for enrolment in world.enrolments("hello")} == {"completed"}


def test_two_workspaces_are_independent(world: World) -> None:
    world.user("u", "shop", email="shop@x.example")
    world.user("u", "other", email="other@x.example")
    world.user("only-other", "other")
    for workspace in ("shop", "other"):
        world.apply({"campaign": "hello", "workspace": workspace, "messages": [{"name": "one", "subject": workspace}]})
        world.launch("hello", workspace)
    world.settle()
    assert sorted(mail.to for mail in world.mails() if mail.user == "u") == ["other@x.example", "shop@x.example"]
    assert len(world.enrolments("hello", workspace="shop")) == 1
    assert len(world.enrolments("hello", workspace="other")) == 2
    world.app.stores.users.delete(world.enrolments("hello", "u", "other")[0].user)
    world.app.commands.cancel(world.record("hello", "other"))
    world.settle()
    assert world.record("hello", "shop").state == "live"


def test_a_campaign_takes_no_turn_from_another_workspace(make_world: Callable[..., World]) -> None:
    world = make_world(slice_users=1, in_flight=1000)
    world.users([f"u{i}" for i in range(60)], "shop")
    world.users(["v"], "other")
    world.apply({"campaign": "big", "workspace": "shop", "kind": "one_off"})
    world.apply({"campaign": "small", "workspace": "other", "kind": "one_off"})
    world.launch("big")
    world.launch("small")
    world.tick()
    world.work(lambda kind, ident: kind == "plan")
    world.tick()
    enqueued = [ident for kind, ident, _ in world.asked if kind == "process"]
    assert any(ident.startswith("other/") for ident in enqueued[:3])
    assert len(enqueued) == 16, "depth 4 for each of 4 threads"
    world.settle()
    assert len(world.mails()) == 61
