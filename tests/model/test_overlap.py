"""Passes that overlap open runs miss no user, whatever the profile's `overlap` says."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Final

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.keys import user_id_of
from engine.policy.models import Overlap
from tests.model.memory_services import START
from tests.model.memory_world import NAME, Installation, MemoryWorld

HOUR: Final = 3_600_000
SPEC: Final = {
    "campaign": NAME,
    "workspace": "shop",
    "kind": "continuous",
    "audience": {"vip_until": {"older_than": "1h"}},
    "messages": [{"name": "one", "channel": "email", "subject": "s", "body": "b", "wait": "10d"}],
}
STEPS: Final = st.lists(
    st.tuples(st.sampled_from((0, 1, 1, 2)), st.integers(0, 4), st.booleans(), st.booleans()), min_size=2, max_size=12
)
"""Hours that pass, messages that workers then take, whether a worker dies, whether the second clock ticks."""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("overlap"))


def begun(installation: Installation, overlap: Overlap, crossings: list[int]) -> MemoryWorld:
    """A launched campaign with hourly passes; user n enters `crossings[n]` hours after the start."""
    profile = {"profile": "default", "lane": "fast", "slice_users": 1, "batch": {"candidates": [1]}}
    profile |= {"pass": "1h", "overlap": overlap.value, "reconcile": "3650d", "in_flight": 8}
    path = installation.folder / "policies/profiles/default.yaml"
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
    installation.first.watcher.look()
    world = MemoryWorld(installation)
    for app in (world.app, world.other):  # campaign time flows, as far as the passes are concerned
        app.clock_tick.time = lambda: (world.now, False)
    for number, hours in enumerate(crossings):
        world.user(f"u{number}", vip_until=START + (hours - 1) * HOUR)
    world.feed()
    world.apply(SPEC)
    world.steer("launch")
    world.settle()
    return world


def work_off(world: MemoryWorld) -> None:
    """Do everything that is open now, while campaign time stands between two passes."""
    for _ in range(8):
        world.feed()
        world.tick()
        world.work()


def entered(world: MemoryWorld) -> Counter[str]:
    return Counter(user_id_of(enrolment.user) for enrolment in world.enrolments())


def kinds(world: MemoryWorld) -> list[tuple[str, str]]:
    return [(raw["kind"], raw["state"]) for raw in world.database["runs"].find()]


@settings(max_examples=40)
@given(crossings=st.lists(st.integers(0, 10), min_size=1, max_size=6), steps=STEPS)
@pytest.mark.parametrize("overlap", list(Overlap))
def test_the_same_users_enter_with_every_overlap(
    overlap: Overlap, crossings: list[int], steps: list[tuple[int, int, bool, bool]], installation: Installation
) -> None:
    world = begun(installation, overlap, crossings)
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr("os.kill", world.signal)
        for hours, most, dies, second in steps:
            world.advance(timedelta(hours=hours))
            if dies:
                with world.dying("run.started", 1):
                    world.tick(second=second)
                with world.dying("slice.decided", 1):
                    world.work(most)
            world.tick(second=second)
            world.work(most)
        for _ in range(2):
            world.advance(timedelta(hours=24))
            world.wait(61)  # leases of dead workers run out
            work_off(world)
    assert entered(world) == {f"u{number}": 1 for number in range(len(crossings))}


def test_passes_that_always_take_too_long_reach_every_user_with_newest(installation: Installation) -> None:
    """Workers decide few of a pass's slices before the time of the next pass comes, again and again."""
    world = begun(installation, Overlap.NEWEST, [1] * 6)
    passes = 0
    while sum(entered(world).values()) < 6 and passes < 40:
        world.advance(timedelta(hours=1))
        world.tick()
        world.plan()
        world.tick()
        world.work(3)
        passes += 1
    assert entered(world) == {f"u{number}": 1 for number in range(6)}
    assert ("pass", "dropped") in kinds(world)


@pytest.mark.parametrize(
    ("overlap", "runs"), [(Overlap.SKIP, ["launch", "pass"]), (Overlap.QUEUE, ["launch", "pass", "pass"])]
)
def test_a_pass_whose_time_came_during_another_is_left_out_or_starts_after_it(
    overlap: Overlap, runs: list[str], installation: Installation
) -> None:
    world = begun(installation, overlap, [1, 2])
    world.advance(timedelta(hours=1))
    world.tick()
    world.advance(timedelta(minutes=90))
    world.tick()  # the second pass is due, the first is open
    work_off(world)
    assert [kind for kind, _ in kinds(world)] == runs
    world.advance(timedelta(hours=1))
    work_off(world)
    assert entered(world) == {"u0": 1, "u1": 1}


def test_a_full_pass_is_never_dropped(installation: Installation) -> None:
    world = begun(installation, Overlap.NEWEST, [1, 5])
    world.database["campaigns"].update_one({}, {"$set": {"reconciled_at": START - 3650 * 24 * HOUR}})
    for app in (world.app, world.other):
        del app.__dict__["live_campaigns"], app.__dict__["clock_tick"]
        app.clock_tick.time = lambda: (world.now, False)
    for _ in range(2):
        world.advance(timedelta(hours=1))
        world.tick()
        world.plan()
    assert ("reconcile", "running") in kinds(world)
    work_off(world)
    assert ("reconcile", "decided") in kinds(world)
    assert not [kind for kind, state in kinds(world) if state == "dropped"]
