"""Campaigns from draft to finished."""

from __future__ import annotations

from tests.integration.pipeline_world import World


def test_a_one_off_campaign_goes_from_draft_to_finished_and_writes_to_each_once(world: World) -> None:
    world.users([f"u{i}" for i in range(5)])
    world.apply({"campaign": "hello", "kind": "one_off"})
    assert world.state("hello") == "draft"
    world.launch("hello")
    assert world.state("hello") == "scheduled"
    world.settle()
    assert world.state("hello") == "finished"
    assert world.sent() == [(f"u{i}", "one") for i in range(5)]
    assert {(str(stay.reason), stay.entry) for stay in world.stays("hello")} == {("completed", 1)}
