"""Edited policies are in force within seconds, without a restart; a bad edit changes nothing."""

from __future__ import annotations

import shutil
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
    for event in ("run.planned", "run.decided", "slice.claimed", "slice.closed", "batch.decided", "batch.delivered"):
        assert {line["labels"].get("policy") for line in installation.lines(event)} == {before, decided["policy"]}, (
            event
        )
    assert {line["labels"].get("policy") for line in installation.lines("delivery.sent")} == {None}, "a byte a mail"
    by_version = installation.call("logs", "search", f"policy:{before} event:run.decided", "--files", "--json")
    assert [line["labels"]["campaign"] for line in by_version.document] == ["one"]
    assert installation.end(process) == 0


def test_hostile_edits_leave_the_right_set_in_force_in_a_running_process(installation: Installation) -> None:
    world = installation.world
    folder = world.folder / "policies"
    default = folder / "profiles" / "default.yaml"
    process = installation.running()

    def in_force(inactivity: str) -> str:
        """Wait until the profile is in force in the process; return the version."""
        world.profile(inactivity=inactivity)
        world.reload()
        version = world.app.policies.version
        installation.until(lambda: installation.lines("policy.swapped", policy=version), inactivity, process)
        return version

    whole = default.read_text()
    (folder / ".#lanes.yaml").symlink_to("someone@host.1234")  # emacs
    (folder / "profiles" / ".default.yaml.swp").write_text("b0VIM")
    (folder / "4913").write_text("")  # vim
    (folder / "lanes.yaml___jb_tmp___").write_text("half")  # JetBrains
    default.write_text(whole[: len(whole) // 2])  # half of it, then the rest
    default.write_text(whole)
    for number in range(50):
        default.write_text(f"{whole}inactivity: {number + 10}d\n")
    versions = [in_force("59d")]
    default.unlink()
    default.symlink_to("nowhere")
    installation.until(lambda: installation.lines("policy.refused"), "the refusal", process)
    assert "cannot be read" in str(installation.lines("policy.refused")[-1])
    default.unlink()
    versions.append(in_force("58d"))

    first = world.folder / "policies" / "..2026_01"  # a config map is mounted there, and swapped
    first.mkdir()
    for name in ("lanes.yaml", "profiles"):
        (folder / name).rename(first / name)
    (folder / "..data").symlink_to("..2026_01")
    for name in ("lanes.yaml", "profiles"):
        (folder / name).symlink_to(f"..data/{name}")
    shutil.copytree(first, folder / "..2026_02")
    edited = folder / "..2026_02" / "profiles" / "default.yaml"
    edited.write_text(edited.read_text().replace("58d", "57d"))
    (folder / "..data_tmp").symlink_to("..2026_02")
    (folder / "..data_tmp").replace(folder / "..data")
    shutil.rmtree(first)
    world.reload()
    versions.append(world.app.policies.version)
    installation.until(lambda: installation.lines("policy.swapped", policy=versions[-1]), "the config map", process)
    swapped = [line["labels"]["policy"] for line in installation.lines("policy.swapped")]
    different = list(dict.fromkeys(swapped))  # the child that serves the suspects follows the files too
    assert [version for version in different if version in versions] == versions
    assert len(different) < len(versions) + 5, "a swap for each set that rested, not for each of 50 saves"
    refusing = [line["process"]["pid"] for line in installation.lines("policy.refused")]
    assert len(refusing) == len(set(refusing)), "each process refuses the unreadable file once"
    world.user("someone")
    world.apply({"campaign": "one", "kind": "one_off"})
    world.launch("one")
    installation.until(lambda: world.state("one") == "finished", "a campaign afterwards", process)
    assert installation.end(process) == 0


def test_fleets_of_running_processes_follow_an_edit(installation: Installation) -> None:
    """Processes are added, a lane waits for its new fleet and is then left to it, and `status` says what is missing."""
    world = installation.world
    processes = [installation.start(*words) for words in (("clock", "run"), ("feed",), ("worker", "all"))]
    installation.until(lambda: len(installation.lines("worker.started")) == 3, "the processes")
    fleets: dict[str, Any] = yaml.safe_load(yaml.safe_dump(POLICIES["fleets"]))
    fleets["all"] |= {"processes": 2, "threads": 2, "niceness": 5}
    edited = world.app.system.system_now()
    world.policies({**POLICIES, "fleets": fleets})
    version = world.app.policies.version
    installation.until(lambda: len(installation.lines("worker.started", process="all")) == 2, "the second process")
    assert at(installation.lines("worker.started", process="all")[-1]) - edited < SECONDS * 2, "a fork takes its time"
    installation.until(lambda: len(installation.lines("policy.swapped", policy=version)) >= 3, "the edit everywhere")
    for line in installation.lines("policy.swapped", policy=version):
        assert at(line) - edited < SECONDS
    notes = installation.until(lambda: installation.call("status", "--json").document["policies"], "the notes")
    assert "all: fleets.all.niceness is 5, the process runs with 3: restart it" in notes
    assert any(note.startswith("suspect: no process of this fleet") for note in notes)

    fleets["all"]["lanes"].remove("slow")
    fleets["turtles"] = {"lanes": ["slow"], "threads": 1}
    world.profile(lane="slow")
    world.policies({**POLICIES, "fleets": fleets})
    world.user("someone")
    world.apply({"campaign": "one", "kind": "one_off"})
    world.launch("one")
    installation.until(lambda: world.state("one") == "finished", "a campaign in a lane whose fleet has no process yet")
    assert installation.lines("lane.left") == []
    processes.append(installation.start("worker", "turtles"))
    installation.until(lambda: len(installation.lines("lane.left", lane="slow")) == 2, "both to leave the lane")
    world.apply({"campaign": "two", "kind": "one_off"})
    world.launch("two")
    installation.until(lambda: world.state("two") == "finished", "a campaign of the new fleet")
    claimed = [
        line for line in installation.lines("slice.claimed", campaign="two") if line["labels"]["kind"] != "deliver"
    ]
    assert {line["process"]["name"] for line in claimed} == {"turtles"}
    assert [installation.end(process) for process in processes] == [0] * 4


def test_work_queued_in_a_lane_that_is_removed_before_a_restart_goes_on_at_once(installation: Installation) -> None:
    """No fleet serves the old queue any more; the clock empties it, and each mail is sent once."""
    installation.env["TIDEGATE_ENGINE__RING_AGAIN"] = "10m"
    world = installation.world
    lanes = {**POLICIES["lanes"], "old": {"kind": "decide"}}
    fleets: dict[str, Any] = yaml.safe_load(yaml.safe_dump(POLICIES["fleets"]))
    fleets["all"]["lanes"].append("old")
    world.profile(lane="old", slice_users=2, in_flight=100)
    world.policies({**POLICIES, "lanes": lanes, "fleets": fleets})
    users = [f"u{number}" for number in range(12)]
    world.users(users)
    world.apply({"campaign": "one", "kind": "one_off"})
    world.launch("one")
    world.tick()
    world.work(lambda kind, _: kind == "plan")
    clock = installation.start("clock", "run")
    broker = broker_for(world.app)
    installation.until(lambda: depths(broker, ["old"])[0].ready == 6, "the messages in the old lane", clock)
    assert installation.end(clock) == 0

    world.profile(lane="fast", slice_users=2, in_flight=100)
    world.policies(POLICIES)
    listed = {row["queue"]: row for row in installation.call("queue", "list", "--json").document}
    assert (listed["old"]["ready"], listed["old"]["removed"], listed["fast"]["removed"]) == (6, True, False)
    process = installation.running()
    installation.until(lambda: world.state("one") == "finished", "the campaign", process)
    installation.until(lambda: installation.lines("lane.swept", lane="old"), "the sweep", process)
    assert installation.lines("lane.swept", lane="old")[0]["tidegate"]["messages"] == 6
    assert world.sent() == sorted((user, "one") for user in users)
    assert "old" not in {row["queue"] for row in installation.call("queue", "list", "--json").document}
    assert installation.end(process) == 0
    broker.flush_all()
    broker.close()


def test_a_lane_that_is_renamed_while_it_works_loses_and_doubles_nothing(installation: Installation) -> None:
    installation.env["TIDEGATE_FAILPOINTS"] = "slice.decided=wait300@*"
    world = installation.world
    fleets: dict[str, Any] = yaml.safe_load(yaml.safe_dump(POLICIES["fleets"]))

    def rename(before: str, after: str) -> str:
        """Replace a lane by another one of a new name; return the version of the edited policies."""
        fleets["all"]["lanes"] = [*(lane for lane in fleets["all"]["lanes"] if lane != before), after]
        (world.folder / "policies" / "lanes.yaml").write_text(
            yaml.safe_dump({"lanes": {**POLICIES["lanes"], after: {"kind": "decide"}}, "fleets": fleets})
        )
        world.profile(lane=after, slice_users=2, in_flight=100)
        world.reload()
        return world.app.policies.version

    rename("", "one")
    users = [f"u{number:02}" for number in range(48)]
    world.users(users)
    world.apply({"campaign": "c", "kind": "one_off"})
    world.launch("c")
    process = installation.running()
    installation.until(lambda: installation.lines("slice.claimed"), "the first slice", process)
    version = rename("one", "two")
    installation.until(lambda: installation.lines("slice.claimed", policy=version), "a slice in the new lane", process)
    installation.until(lambda: world.state("c") == "finished", "the campaign", process)
    assert world.sent() == [(user, "one") for user in users]
    queues = {row["queue"] for row in installation.call("queue", "list", "--json").document}
    assert ("two" in queues, "one" in queues) == (True, False)
    assert installation.end(process) == 0


def test_a_check_before_saving_names_the_live_campaigns_that_would_move(installation: Installation) -> None:
    world = installation.world
    world.user("someone")
    world.apply({"campaign": "going"})
    world.launch("going")
    edited = world.folder / "default.yaml"
    edited.write_text("profile: default\nlane: slow\n")
    told = installation.call("policy", "check", "default.yaml", "--json").document
    assert told["campaigns"]["live"] == 1
    assert [(move["after"]["campaign"], move["after"]["lane"]) for move in told["moved"]] == [("going", "slow")]
    assert "going: decides in slow (was fast)" in installation.call("policy", "check", "default.yaml").out
    missing = {"TIDEGATE_SERVICES__MONGO_URL": "mongodb://127.0.0.1:9"}
    without = installation.call("policy", "check", "default.yaml", **missing)
    assert (without.code, "MongoDB was not asked" in without.err) == (0, True)


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
