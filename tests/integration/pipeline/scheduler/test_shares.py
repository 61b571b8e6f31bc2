"""Lanes are shared by measured time: by weight over workspaces, and a higher urgency before a lower one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest

from engine.domain.lifecycle import SliceState
from tests.support.pipeline_world import POLICIES, World

LEASE = timedelta(minutes=1)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """Each campaign has 80 deciding slices, of which as many as the lane has room for may run at once."""
    world = make_world(slice_users=5, in_flight=80, batch={"candidates": [5]})
    for workspace in ("shop", "other"):
        world.users([f"{workspace}{number}" for number in range(400)], workspace=workspace)
    return world


def policies(world: World, **weights: float) -> None:
    lanes = {**POLICIES["lanes"], "fast": {"kind": "decide", "depth": 1}}
    shares = {name: {"weight": weight} for name, weight in weights.items()}
    world.policies({**POLICIES, "lanes": lanes, "workspaces": shares})


def launch(world: World, **profiles: str | None) -> None:
    """Launch a campaign in each workspace, under the given profile."""
    for workspace, profile in profiles.items():
        campaign = f"to-{workspace}"
        named = {} if profile is None else {"profile": profile}
        world.apply({"campaign": campaign, "workspace": workspace, "kind": "one_off", **named})
        world.launch(campaign, workspace)
    world.tick()
    world.work(lambda kind, _: kind == "plan")


def served(world: World, turns: int, costs: dict[str, int]) -> Counter[str]:
    """Serve the lane for so many turns; return the milliseconds that each workspace had, at `costs` a slice."""
    had: Counter[str] = Counter()
    slices = world.database["slices"]
    for _ in range(turns):
        world.tick()
        for kind, slice_id, _ in list(world.asked):
            if kind != "process":
                continue
            claimed = world.app.stores.slices.claim(slice_id, "t", LEASE)
            assert claimed is not None
            world.app.stores.slices.close(slice_id, "t", SliceState.DONE, {})
            slices.update_one({"_id": slice_id}, {"$set": {"worked": costs[claimed.workspace]}})
            had[claimed.workspace] += costs[claimed.workspace]
        world.asked.clear()
    return had


def test_workspaces_share_a_lane_by_weight_and_measured_time(world: World) -> None:
    policies(world, other=3)
    launch(world, shop=None, other=None)
    room = world.app.policies.room("fast")
    had = served(world, 60 // room, {"shop": 3_000, "other": 1_000})
    assert had["other"] / had["shop"] == pytest.approx(3, rel=0.35), "a few slices more or less"


def test_a_higher_urgency_comes_before_all_shares(world: World) -> None:
    world.profile("first", urgency="high", slice_users=5, in_flight=80, batch={"candidates": [5]})
    policies(world, shop=100)
    launch(world, shop=None, other="first")
    had = served(world, 3, {"shop": 1, "other": 1})
    assert had["shop"] == 0
    assert had["other"] > 0
    assert served(world, 40, {"shop": 1, "other": 1})["shop"] > 0, "it comes when nothing more urgent waits"
