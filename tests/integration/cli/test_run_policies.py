"""Edited policies are in force within seconds, without a restart; a bad edit changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import yaml

from actors.broker.queue_admin import depths
from actors.fleet import run_fleet_in_process, stop_fleets
from actors.setup import broker_for
from engine.clock import parse_instant
from engine.telemetry import events
from tests.support.installation import Installation
from tests.support.pipeline_shop import POLICIES
from tests.support.pipeline_world import World

SECONDS = 5_000
"""Milliseconds within which an edit is in force (`docs/policies.md`)."""


def at(line: dict[str, Any]) -> int:
    return parse_instant(line["@timestamp"])


def test_an_edit_is_in_force_within_five_seconds_and_a_bad_one_is_refused(
    installation: Installation,
) -> None:
    world = installation.world
    world.user("first")
    process = installation.running()
    world.apply({"campaign": "one", "kind": "one_off"})
    world.launch("one")
    installation.until(lambda: world.state("one") == "finished", "the first campaign", process)
    before = installation.lines("batch.decided")[-1]["labels"]["policy"]

    lanes: dict[str, Any] = yaml.safe_load(yaml.safe_dump(POLICIES))
    lanes["lanes"] |= {"express": {"kind": "decide"}, "post": {"kind": "deliver"}}
    lanes["fleets"]["all"]["lanes"] += ["express"]
    lanes["fleets"]["postmen"] = {"lanes": ["post"], "processes": 1, "threads": 1}
    edited = world.app.system.system_now()
    (world.folder / "policies" / "lanes.yaml").write_text(yaml.safe_dump(lanes))
    world.profile(lane="express", deliver_lane="post")
    world.reload()
    version = world.app.policies.version  # of both files: a process may read them between the two writes
    installation.until(lambda: installation.lines("policy.swapped", policy=version), "the new policies", process)
    swapped = installation.lines("policy.swapped", policy=version)[-1]
    assert at(swapped) - edited < SECONDS
    world.apply({"campaign": "two", "kind": "one_off"})
    world.launch("two")
    installation.until(lambda: world.state("two") == "finished", "the second campaign", process)
    decided = installation.lines("batch.decided")[-1]["labels"]
    assert (decided["campaign"], decided["policy"]) == ("two", world.app.policies.version)
    assert decided["policy"] != before
    assert world.sent() == [("first", "one"), ("first", "one")]

    (world.folder / "policies" / "profiles" / "default.yaml").write_text("profile: default\nlane: expres\n")
    installation.until(lambda: installation.lines("policy.refused"), "the refusal", process)
    refused = installation.lines("policy.refused")[-1]
    assert "default.yaml:2:7" in str(refused)
    assert "express" in str(refused), "with what was meant"
    world.apply({"campaign": "three", "kind": "one_off"})
    world.launch("three")
    installation.until(lambda: world.state("three") == "finished", "the third campaign", process)
    assert installation.lines("batch.decided")[-1]["labels"]["policy"] == decided["policy"]
    assert installation.end(process) == 0


def test_messages_queued_on_the_old_lane_move_to_the_new_one(make_world: Callable[..., World]) -> None:
    world = make_world(slice_users=2, in_flight=100, lane="slow")
    world.users([f"u{i}" for i in range(12)])
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    world.tick()
    world.work()
    broker = broker_for(world.app)
    broker.flush_all()
    try:
        world.tick()
        assert {depth.queue: depth.ready for depth in depths(broker)}["slow"] == 6
        world.profile(slice_users=2, in_flight=100, lane="fast")
        world.reload()
        deciding = _Threads("batch.decided")
        moved = _Threads("slice.moved")
        fleet = world.app.policies.fleets["all"]
        quick = {"threads": 1, "worker_timeout": "50ms"}
        slow = run_fleet_in_process(broker, fleet.model_validate({"lanes": ["slow"], **quick}), "slow")
        fast = run_fleet_in_process(broker, fleet.model_validate({"lanes": ["fast", "control"], **quick}), "fast")
        try:
            assert deciding.wait(6)
        finally:
            stop_fleets(broker, [slow, fast])
        assert moved.names >= {thread.name for thread in slow.workers}
        assert deciding.names == {thread.name for thread in fast.workers}
        assert len(world.enrolments("hello")) == 12
    finally:
        broker.flush_all()
        broker.close()


class _Threads:
    """Return the threads that emitted an event."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._count = threading.Semaphore(0)
        self.names: set[str] = set()
        events.subscribe(self)

    def __call__(self, occurrence: events.Occurrence) -> None:
        if occurrence.name == self._event:
            self.names.add(threading.current_thread().name)
            self._count.release()

    def wait(self, times: int) -> bool:
        """Return whether it was emitted that often within 30 s."""
        return all(self._count.acquire(timeout=30) for _ in range(times))
