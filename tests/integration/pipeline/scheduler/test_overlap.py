"""On a real MongoDB: what becomes of a pass whose time comes while the one before it is open."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from engine.telemetry.events import CollectedEvents, listening
from tests.support.pipeline_world import START, World

HOUR = 3_600_000
NAME = "vip"
VIP = {"campaign": NAME, "audience": {"vip_until": {"older_than": "1h"}}, "entry": "once"}
USERS = tuple(f"u{number}" for number in range(8))


@pytest.fixture
def heard() -> Iterator[CollectedEvents]:
    with listening() as occurrences:
        yield occurrences


def during_a_pass(make_world: Callable[..., World], overlap: str) -> World:
    """Hourly passes; the pass of eight users who match after an hour is open when the time of the next one comes."""
    world = make_world(overlap=overlap, reconcile="900d", slice_users=1, in_flight=8, **{"pass": "1h"})
    world.app.clock_tick.time = lambda: (world.now, False)  # as if nobody had set campaign time
    world.users(USERS, vip_until=START)
    world.user("later", vip_until=START + HOUR // 2)
    world.apply(VIP)
    world.launch(NAME)
    work_off(world)
    world.advance("1h")
    world.tick()
    world.work(lambda kind, ident: kind == "plan")
    world.tick()
    first = world.asked.popleft()
    world.do(first[0], first[1])
    world.advance("1h")
    world.tick()
    return world


def work_off(world: World) -> None:
    """Do everything that is open now."""
    for _ in range(8):
        world.step()


def passes(world: World) -> list[tuple[int, str]]:
    """Return the hour and the state of each pass."""
    return [((run["as_of"] - START) // HOUR, run["state"]) for run in world.runs(NAME) if run["kind"] == "pass"]


@pytest.mark.parametrize(
    ("overlap", "reason", "then", "late"),
    [
        ("skip", "left_out", [(1, "decided")], []),
        ("queue", "waits", [(1, "decided"), (2, "decided")], ["later"]),
        ("newest", "takes_over", [(1, "dropped"), (2, "decided")], ["later"]),
    ],
)
def test_the_profile_says_what_becomes_of_the_next_pass(
    overlap: str,
    reason: str,
    then: list[tuple[int, str]],
    late: list[str],
    make_world: Callable[..., World],
    heard: CollectedEvents,
) -> None:
    world = during_a_pass(make_world, overlap)
    assert heard.of("pass.overlapped", campaign=NAME, reason=reason)
    work_off(world)
    assert passes(world) == then
    assert sorted(user for user, _ in world.sent()) == sorted([*late, *USERS])
    world.advance("1h")
    work_off(world)
    assert [user for user, _ in world.sent()] == ["later", *USERS]
    assert [event.fields["reason"] for event in heard.of("run.dropped")] == (["newest"] if overlap == "newest" else [])


def test_a_waiting_pass_is_logged_once(make_world: Callable[..., World], heard: CollectedEvents) -> None:
    world = during_a_pass(make_world, "queue")
    world.tick()
    world.tick()
    assert len(heard.of("pass.overlapped", campaign=NAME)) == 1


def test_an_edit_of_the_overlap_acts_at_the_next_pass(make_world: Callable[..., World]) -> None:
    world = during_a_pass(make_world, "queue")
    world.profile(overlap="newest", reconcile="900d", slice_users=1, in_flight=8, **{"pass": "1h"})
    world.reload()
    world.tick()
    assert [hour for hour, _ in passes(world)] == [1, 2]
    work_off(world)
    assert passes(world) == [(1, "dropped"), (2, "decided")]
    assert sorted(user for user, _ in world.sent()) == sorted(["later", *USERS])
