"""Two processes that do the same: two clocks, and a worker that slept longer than its lease."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from engine.domain.work import SliceKind
from engine.pipeline.scheduler.loop import LEASE
from tests.chaos.conftest import Drive
from tests.chaos.play import NAME, Performer, Step, let_time_pass
from tests.support.pipeline_world import START, World

DAY: Final = 86_400_000
USERS: Final = tuple(f"u{number}" for number in range(12))
STEPS: Final[tuple[Step, ...]] = (("launch",), ("settle",))


def staged(make_stage: Callable[..., World], **more: Any) -> World:
    """A world with twelve users in two slices and a campaign of two messages, not launched."""
    world = make_stage(**more)
    world.users(USERS)
    messages = [{"name": "one"}, {"name": "two", "wait": "2d"}]
    world.apply({"campaign": NAME, "kind": "continuous", "entry": {"again_after": "3d"}, "messages": messages})
    return world


def left_open(world: World) -> str | None:
    """Return the open work once the feed has caught up; MongoDB's time also moves with writes of other tests."""
    for _ in range(20):
        world.feed()
        left = world.app.quiescence.what()
        if left is None or "the feed" not in left:
            break
    return left


def test_concurrent_clocks_and_workers_create_nothing_twice(make_stage: Callable[..., World]) -> None:
    """Both clocks tick at the same moment in each round; then both perform what both enqueued."""
    world = staged(make_stage)
    both = [world.app, world.open()]
    performers = [Performer(app, world.database, world.asked) for app in both]
    start = threading.Barrier(2, timeout=60)

    def tick_and_work(performer: Performer) -> None:
        start.wait()
        performer.app.clock_tick.run()
        start.wait()
        performer.round()

    with ThreadPoolExecutor(2) as pool:
        world.launch(NAME)
        for day in range(7):
            world.advance(to=START + day * DAY)
            for _ in range(200):
                list(pool.map(tick_and_work, performers))
                if not world.asked and not world.feed() and world.app.quiescence.what() is None:
                    break
                let_time_pass(world.database)
            assert left_open(world) is None
    both[1].close()
    world.check()
    for user in USERS:
        enrolments = world.enrolments(NAME, user)
        assert [enrolment.entry for enrolment in enrolments] == [
            1,
            2,
        ]  # completed after two days, back three days later
        assert [enrolment.entered_at for enrolment in enrolments] == [START, START + 5 * DAY]
        assert [delivery.message for delivery in enrolments[0].settled] == ["one", "two"]
    runs = Counter((run["kind"], run["as_of"]) for run in world.runs(NAME) if run["kind"] != "due")
    assert runs.pop(("launch", START)) == 1
    assert runs == {("reconcile", START + day * DAY): 1 for day in range(1, 7)}
    pieces = Counter(document["run"] for document in world.database["slices"].find({"kind": SliceKind.EVERYBODY.value}))
    assert set(pieces.values()) == {2}


def test_only_one_of_two_clocks_holds_the_lease(make_stage: Callable[..., World]) -> None:
    """The fencing number rises with each holder, so an old holder is recognised."""
    leases = make_stage().app.stores.leases
    first = leases.hold("clock", "one", LEASE)
    assert first is not None
    assert leases.hold("clock", "two", LEASE) is None
    assert leases.hold("clock", "one", LEASE) == first
    leases.give_up("clock", "one")
    second = leases.hold("clock", "two", LEASE)
    assert second is not None
    assert second > first


@pytest.mark.parametrize("lease", ["really over", "over by MongoDB's clock only"])
@pytest.mark.parametrize(
    "point", ["slice.decided", "enter.inserted", "slice.recorded", "deliver.marked", "deliver.sending"]
)
def test_a_worker_whose_lease_ran_out_repeats_nothing(
    point: str, lease: str, make_stage: Callable[..., World], drive: Drive
) -> None:
    """The worker is stopped in the middle of a batch, another finishes its slice, then it continues."""
    real = lease == "really over"
    world = staged(make_stage, engine={"lease": "2s" if real else "30s", "ring_again": "500ms"})
    pid, end = drive.perform(world.settings, STEPS, f"{point}=stop")
    assert end == "stopped"
    performer = Performer(world.app, world.database, world.asked)
    if real:
        pause = threading.Event()
        for _ in range(600):
            if not performer.round() and not world.feed() and world.app.quiescence.what() is None:
                break
            pause.wait(0.05)
    else:
        performer.settle()
    assert left_open(world) is None
    before = [(enrolment.id, enrolment.version, enrolment.settled) for enrolment in world.enrolments(NAME)]
    os.kill(pid, signal.SIGCONT)
    assert drive.wait(pid) == "exit 0"
    world.check()
    assert [(enrolment.id, enrolment.version, enrolment.settled) for enrolment in world.enrolments(NAME)] == before
    assert [message for _, message in world.sent()] == ["one"] * len(USERS)
