"""`tidegate policy simulate --days` over slices that were worked on, on a real MongoDB."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from engine.domain.lifecycle import SliceState
from tests.acceptance.conftest import tidegate
from tests.support.installation import Installation, Told

__all__ = ["tidegate"]

Tidegate = Callable[..., Told]


@pytest.fixture
def worked(installation: Installation) -> Installation:
    """Two campaigns that have been launched and worked on, so that their slices are recorded."""
    world = installation.world
    world.users([f"u{number}" for number in range(20)], plan="free")
    for name in ("one", "two"):
        world.start({"campaign": name, "kind": "one_off", "audience": {"plan": "free"}})
    world.settle()
    return installation


def test_the_waits_of_each_lane_are_those_recorded_and_simulated(worked: Installation, tidegate: Tidegate) -> None:
    forecast = tidegate("policy", "simulate", "--days", "7", "--json").document["forecast"]
    ended = worked.world.database.slices.count_documents({"state": SliceState.DONE.value})
    assert forecast["slices"] == ended > 0
    assert forecast["left_out"] == 0
    lanes = {lane["lane"]: lane for lane in forecast["lanes"]}
    assert {"fast", "deliver"} <= set(lanes)
    assert sum(lane["recorded"]["slices"] for lane in lanes.values()) == ended
    for lane in lanes.values():
        assert lane["edited"] is None
        assert lane["today"]["slices"] == lane["recorded"]["slices"]
        assert 0 <= lane["today"]["p50"] <= lane["today"]["p95"] <= lane["today"]["p99"]
        assert 0 < lane["today"]["busy"] <= 1


def test_an_edit_that_moves_a_campaign_shows_its_new_lane(worked: Installation, tidegate: Tidegate) -> None:
    edited = worked.folder / "edited"
    shutil.copytree(worked.folder / "policies", edited)
    (edited / "profiles" / "moved.yaml").write_text("profile: moved\nmatches: {campaign: two}\nlane: slow\n")
    result = tidegate("policy", "simulate", "--days", "7", "--edited", str(edited), "--json")
    assert result.code == 0, result.err
    lanes = {lane["lane"]: lane for lane in result.document["forecast"]["lanes"]}
    assert lanes["slow"]["recorded"] is None
    assert lanes["slow"]["today"] is None
    assert lanes["slow"]["edited"]["slices"] + lanes["fast"]["edited"]["slices"] == lanes["fast"]["today"]["slices"]


def test_the_table_says_what_it_covers_and_what_it_does_not_model(worked: Installation, tidegate: Tidegate) -> None:
    told = tidegate("policy", "simulate", "--days", "7", "--edited", str(worked.folder / "policies"))
    assert told.code == 0, told.err
    assert "replayed " in told.out
    assert " of 7 days)" in told.out
    assert "simulated edited" in told.out
    assert "- processors: a turn takes as long as recorded" in told.out


def test_it_says_that_nothing_is_recorded(installation: Installation, tidegate: Tidegate) -> None:
    assert installation.world.database.slices.count_documents({}) == 0
    assert (
        "nothing is recorded: no slice with turns ended in the last 3 days"
        in tidegate("policy", "simulate", "--days", "3").out
    )
    document = tidegate("policy", "simulate", "--days", "3", "--json").document["forecast"]
    assert (document["first"], document["slices"], document["lanes"]) == (None, 0, [])


def test_slices_of_an_earlier_engine_are_counted_as_left_out(worked: Installation, tidegate: Tidegate) -> None:
    worked.world.database.slices.update_many(
        {}, [{"$set": {"worked": {"$max": ["$worked", 1]}}}, {"$unset": "added_at"}]
    )
    assert "nothing is recorded" in (out := tidegate("policy", "simulate", "--days", "7").out)
    assert "left out: no turns are recorded" in out


def test_a_week_is_the_longest_record(installation: Installation, tidegate: Tidegate) -> None:
    assert tidegate("policy", "simulate", "--days", "8").code == 2
