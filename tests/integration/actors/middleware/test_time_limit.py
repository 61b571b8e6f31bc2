"""A deciding slice that exceeds its lane's time limit is halved until one user is left, and its campaign says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import pytest

from engine.cli.campaign_output import standing_document
from engine.decisions import poison
from engine.failpoints import arm
from engine.telemetry.events import CollectedEvents, listening
from tests.support.engine_threads import engine_threads
from tests.support.pipeline_shop import POLICIES
from tests.support.pipeline_world import World

rig = SimpleNamespace(**run_path(str(Path(__file__).parents[3] / "stock" / "rig.py")))

NAME: Final = "c"
USERS: Final = tuple(f"u{number}" for number in range(12))
SLOW: Final = "u3"
A_MINUTE: Final = 20.0


@pytest.fixture
def heard() -> Iterator[CollectedEvents]:
    with listening() as occurrences:
        yield occurrences


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Retry a slow user at once; disarm the failpoints at the end."""
    monkeypatch.setattr(poison, "LONGEST_BACKOFF", timedelta(seconds=0.5))
    yield
    arm("")


def staged(make_world: Callable[..., World], **engine: str) -> World:
    """Launch a one-off campaign of twelve users in one slice, and another campaign that is not for the slow user."""
    world = make_world(engine={"ring_again": "1s", "tick": "100ms", **engine}, slice_users=100)
    lanes = {**POLICIES["lanes"], "fast": {"kind": "decide", "time_limit": "5s"}}
    lanes["slow"] = {"kind": "decide", "time_limit": "5s"}
    world.policies({**POLICIES, "lanes": lanes})
    world.users(USERS)
    world.change(SLOW, plan="slow")
    world.feed()
    for name, audience in ((NAME, {"all": []}), ("other", {"none": [{"plan": "slow"}]})):
        world.apply({"campaign": name, "kind": "one_off", "audience": audience})
        world.launch(name)
    return world


@pytest.mark.parametrize(
    ("action", "factor", "engine"),
    [("hang", 0.1, {"lease": "30s"}), ("wait3000", 2.5, {"lease": "1500ms"})],
    ids=["interrupted at the lane's limit", "uninterruptible until its lease is over"],
)
def test_one_slow_user_is_left_alone_and_all_others_are_decided(
    action: str,
    factor: float,
    engine: dict[str, str],
    make_world: Callable[..., World],
    heard: CollectedEvents,
) -> None:
    world = staged(make_world, **engine)
    arm(f"slice.decided={action}@*~/{SLOW}/")
    with engine_threads(world, factor=factor, interval=0.05):
        rig.wait_for(lambda: "time limit" in (world.record(NAME).stuck or ""), A_MINUTE, "the mark")
        others = sorted(set(USERS) - {SLOW})
        rig.wait_for(lambda: len(world.enrolments(NAME)) == len(others), A_MINUTE, "the other users")
        assert sorted(user for user in USERS if world.enrolments(NAME, user)) == others
        assert "time limit" in str(standing_document(world.record(NAME)))
        assert (world.state(NAME), world.state("other")) == ("live", "finished")
        arm("")
        rig.wait_for(lambda: world.state(NAME) == "finished", A_MINUTE, "the end of the campaign")
    assert world.record(NAME).stuck is None
    world.check()
    assert [len(world.enrolments(NAME, user)) for user in USERS] == [1] * len(USERS)
    reasons = [event.fields.get("reason") for event in heard.of("slice.released")]
    assert reasons.count("time_limit") >= 6
    assert {event.fields["reason"] for event in heard.of("slice.split")} == {"time_limit"}
    assert not heard.of("slice.suspect")
    assert not heard.of("slice.dead")
