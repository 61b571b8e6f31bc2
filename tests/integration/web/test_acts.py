"""What people do on the pages: each act with its question, its form, its result and its audit line."""

from __future__ import annotations

import pytest

from engine.domain.access import Role
from engine.telemetry.events import listening
from tests.support.pipeline_world import World
from tests.support.web_pages import Pages

WINBACK = "/w/shop/campaigns/winback"


def test_a_launch_needs_the_count_that_the_plan_shows(world: World, pages: Pages) -> None:
    world.users([f"u{number}" for number in range(40)])
    world.apply({"campaign": "winback"})
    client = pages.access("ann", Role.OPERATE)
    assert "The plan counts 40." in pages.get(f"{WINBACK}/launch", client)
    for wrong in ("", "many", "50"):
        refused = pages.send(client, f"{WINBACK}/launch", expect=wrong)
        assert refused.status_code == 400, wrong
    assert world.state("winback") == "draft"
    with listening() as events:
        done = pages.send(client, f"{WINBACK}/launch", expect="41")
        audit = events.wait("access.acted", kind="launch")
    assert (done.status_code, done.headers["location"]) == (303, WINBACK)
    assert audit.fields["access"] == "ann"
    assert audit.fields["campaign"] == "winback"
    assert world.state("winback") == "scheduled"
    assert "it is launched" in pages.get(WINBACK, client)


@pytest.mark.parametrize(
    ("act", "before", "after"),
    [
        ("pause", "live", "paused"),
        ("resume", "paused", "live"),
        ("stop", "live", "draining"),
        ("cancel", "live", "cancelled"),
    ],
)
def test_an_act_moves_the_campaign_and_says_who_did_it(
    world: World, pages: Pages, act: str, before: str, after: str
) -> None:
    world.users(["u1"])
    world.start({"campaign": "winback", "messages": [{"name": "one"}, {"name": "two", "wait": "1d"}]})
    if before == "paused":
        world.steer("pause", "winback")
    client = pages.access("ann", Role.OPERATE)
    with listening() as events:
        answer = pages.send(client, f"{WINBACK}/{act}", reason="wrong price")
        assert answer.status_code == 303, answer.text
        assert events.wait("access.acted", kind=act).fields["access"] == "ann"
    assert world.state("winback") == after
    if act == "pause":
        assert world.record("winback").paused_reason == "by ann: wrong price"


def test_an_act_that_the_state_does_not_allow_is_refused(world: World, pages: Pages) -> None:
    world.apply({"campaign": "winback"})
    client = pages.access("ann", Role.OPERATE)
    assert client.get(f"{WINBACK}/resume").status_code == 400
    with listening() as events:
        refused = pages.send(client, f"{WINBACK}/resume", page=f"{WINBACK}/launch")
        assert refused.status_code == 400
        assert events.wait("access.acted", kind="resume").fields["outcome"] == "failure"


def test_failed_deliveries_are_replayed(world: World, pages: Pages) -> None:
    world.users(["u1", "u2"], age=0)
    world.start({"campaign": "winback", "messages": [{"name": "one", "body": "{{ 10 | divided_by: user.age }}"}]})
    client = pages.access("ann", Role.OPERATE)
    answer = pages.send(client, f"{WINBACK}/replay", message="one")
    assert answer.status_code == 303, answer.text
    assert "2 deliveries are queued again" in pages.get(WINBACK, client)


def test_the_gate_is_set_by_hand_and_released(world: World, pages: Pages) -> None:
    client = pages.access("ann", Role.OPERATE)
    answer = pages.send(client, "/gate/set", hold="limit", limit="0.5", lasts="5m", why="backup")
    assert answer.status_code == 303, answer.text
    view = world.app.gate_store.view()
    assert view is not None
    assert view.override is not None
    assert (view.override.limit, view.override.why) == (0.5, "by ann: backup")
    for wrong in ({"hold": "limit", "limit": "x"}, {"hold": "open", "lasts": "8d"}, {"hold": "ajar"}):
        assert pages.send(client, "/gate/set", **{"lasts": "5m", **wrong}).status_code == 400, wrong
    assert pages.send(client, "/gate/set", hold="automatic").status_code == 303
    view = world.app.gate_store.view()
    assert view is not None
    assert view.override is None
