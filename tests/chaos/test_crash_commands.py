"""Commands and halving that are killed between two writes: the tick or a repeated command finishes what was begun."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from engine.domain.keys import user_suffix
from tests.chaos.conftest import Drive
from tests.chaos.play import NAME, Performer, Step
from tests.support.pipeline_world import World

USERS: Final = tuple(f"u{number}" for number in range(12))
STEPS: Final[tuple[Step, ...]] = (("launch",), ("settle",))
DECIDING: Final = "slice.decided=raise@*~/u3/"


@pytest.fixture
def live(stage: World, recover: Callable[..., Performer]) -> World:
    """Twelve users inside a continuous campaign, each with one mail; the second is two days away."""
    stage.users(USERS)
    stage.apply({"campaign": NAME, "messages": [{"name": "one"}, {"name": "two", "wait": "2d"}]})
    recover(stage, STEPS)
    return stage


def test_a_cancelled_campaign_ends_its_enrolments_after_any_crash(
    live: World, recover: Callable[..., Performer]
) -> None:
    """The command is one write; the tick makes the run over the enrolments, so a tick killed after it loses nothing."""
    live.steer("cancel", NAME)
    assert live.app.quiescence.what() == f"campaign {NAME} has users to re-evaluate"
    recover(live, (("settle",),), "run.started=raise")
    live.check()
    assert {(enrolment.state, enrolment.reason) for enrolment in live.enrolments(NAME)} == {("ended", "cancelled")}
    assert len(live.sent()) == len(USERS)


@pytest.mark.parametrize("what", ["resume", "apply"])
def test_a_resume_or_an_edit_is_carried_out_after_any_crash(
    live: World, recover: Callable[..., Performer], what: str
) -> None:
    """The command is one write; the tick makes the run it requires. Users who came meanwhile enter once."""
    live.steer("pause", NAME)
    live.user("late")
    if what == "apply":
        wider = {"any": [{"plan": {"exists": True}}, {"plan": {"exists": False}}]}
        two = [{"name": "one"}, {"name": "two", "wait": "2d"}]
        live.apply({"campaign": NAME, "audience": wider, "messages": two})
    live.steer("resume", NAME)
    assert live.app.quiescence.what() == f"campaign {NAME} has users to re-evaluate"
    recover(live, (("settle",),), "run.started=raise")
    live.check()
    assert live.state(NAME) == "live"
    assert len(live.enrolments(NAME, "late")) == 1
    assert len(live.sent()) == len(USERS) + 1


def test_no_user_is_lost_between_halves_cut_at_different_places(
    make_stage: Callable[..., World], drive: Drive, recover: Callable[..., Performer]
) -> None:
    """A kill after the first half, then a changed set of users: the second half begins where the first ends."""
    world = make_stage(slice_users=100)
    world.users(USERS)
    world.apply({"campaign": NAME, "kind": "one_off"})
    assert drive.perform(world.settings, STEPS, f"{DECIDING},poison.half_written=kill")[1] == "signal 9"
    half = world.database["slices"].find_one({"_id": {"$regex": "a$"}})
    assert half is not None
    late = [f"u{number}" for number in range(100, 160)]
    for user in late:
        world.user(user)
    recover(world, STEPS, DECIDING)
    world.check()
    ahead = [
        user for user in late if user_suffix(user) > half.get("cursor", half["first"])
    ]  # the other users came too late
    assert ahead
    assert [user for user, _ in world.sent()] == sorted({*USERS, *ahead} - {"u3"})
    slices = {document["_id"]: document for document in world.database["slices"].find({"kind": "audience"})}
    for slice_ in slices.values():
        if slice_["state"] == "split":
            assert slices[slice_["_id"] + "a"]["until"] == slices[slice_["_id"] + "b"]["first"]
    assert world.enrolment(NAME, "u3").detail == "poison"
