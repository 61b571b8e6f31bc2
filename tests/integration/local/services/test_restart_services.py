"""A dead local service is restarted on its port and data; its last owner ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from pymongo import MongoClient

from engine.local.processes.process_groups import members
from engine.local.services.local_services import LocalServices
from engine.local.services.program import ServiceName
from engine.process_identity import myself

NEEDED: tuple[ServiceName, ...] = ("mongo", "broker", "cache")
LEAVE = """
import os, signal, sys
from pathlib import Path
from engine.local.services.local_services import LocalServices
services = LocalServices(Path(sys.argv[1]))
services.start(["broker"])
if "on-purpose" in sys.argv:
    services.leave()
os.kill(os.getpid(), signal.SIGKILL)
"""
PATIENCE = 60.0


class Said:
    """Collects the services' output, to wait for lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._more = threading.Condition()

    def __call__(self, text: str) -> None:
        with self._more:
            self.lines.append(text)
            self._more.notify_all()

    def until(self, *parts: str, times: int = 1) -> None:
        """Wait until that many lines with all these parts were printed."""
        with self._more:
            assert self._more.wait_for(
                lambda: sum(all(part in line for part in parts) for line in self.lines) >= times, PATIENCE
            ), self.lines


Make = Callable[..., LocalServices]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Yield a function that makes `LocalServices` of one folder; end all afterwards."""
    everyone: list[LocalServices] = []

    def made(**options: object) -> LocalServices:
        everyone.append(LocalServices(tmp_path, mongo_cache_gb=0.25, **options))
        return everyone[-1]

    yield made
    for services in everyone:
        services.stop()
    LocalServices(tmp_path).stop(everything=True, discard=True)


def pids(services: LocalServices) -> dict[str, int]:
    return {status.name: status.pid for status in services.status() if status.pid is not None}


def test_a_dead_service_is_restarted_at_its_address_with_its_data_and_reported(make: Make) -> None:
    said = Said()
    services = make(say=said)
    urls = services.start(NEEDED)
    services.keep()
    with MongoClient(urls.mongo_url, w="majority") as client, redis.Redis.from_url(urls.broker_url) as broker:
        client.x.y.insert_one({"_id": 1})
        broker.set("kept", "yes")
        broker.execute_command("WAITAOF", 1, 0, 5000)  # in its file, not only in transit
    before = pids(services)
    for name in NEEDED:
        os.kill(before[name], signal.SIGKILL)
    for name in NEEDED:
        said.until(name, f"pid {before[name]}", "died; it starts again in 0.25 s")
        said.until(name, "runs again")
    assert services.running().environment() == urls.environment()
    with MongoClient(urls.mongo_url, w="majority") as client, redis.Redis.from_url(urls.broker_url) as broker:
        assert client.x.y.count_documents({}) == 1
        assert broker.get("kept") == b"yes"
    shown = {status.name: status for status in services.status() if status.name in NEEDED}
    assert {status.state for status in shown.values()} == {"running"}
    assert {status.restarts for status in shown.values()} == {1}
    assert {status.last_exit for status in shown.values()} == {"by SIGKILL"}
    assert not set(pids(services).values()) & set(before.values())
    os.kill(pids(services)["cache"], signal.SIGKILL)
    said.until("cache", "it starts again in 0.5 s")
    after = pids(services)
    assert set(services.stop()) >= {"mongo", "broker"}
    assert [pid for pid in after.values() if psutil.pid_exists(pid) and members(pid)] == []


def test_a_hanging_service_is_killed_and_restarted_at_its_address(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """After SIGSTOP the kernel still accepts connections; a service that answers again in time is not killed."""
    said = Said()
    services = make(say=said)
    urls = services.start(NEEDED)
    monkeypatch.setattr("engine.local.services.reachability.ANSWERS", 0.5)
    services.keeper.between_questions, services.keeper.hung = 0.2, 3.0
    services.keep()
    before = pids(services)
    os.kill(before["cache"], signal.SIGSTOP)
    said.until("cache", f"pid {before['cache']}", "does not answer; it is killed after 3 s")
    assert {item.name: item.answers for item in map(services.probed, services.status()) if item.pid} == {
        "mongo": True,
        "broker": True,
        "cache": False,
    }
    os.kill(before["cache"], signal.SIGCONT)
    said.until("cache", "answers again")
    for name in ("mongo", "broker"):
        os.kill(before[name], signal.SIGSTOP)
    for name in ("mongo", "broker"):
        said.until(name, f"pid {before[name]}", "and is killed")
        said.until(name, "runs again")
    assert services.running().environment() == urls.environment()
    after = pids(services)
    assert after["cache"] == before["cache"]
    assert not {after["mongo"], after["broker"]} & set(before.values())


def test_a_service_ended_on_purpose_is_not_restarted(make: Make) -> None:
    said = Said()
    services = make(say=said)
    services.start(["broker", "cache"])
    services.keep()
    make().stop(everything=True)
    broker_died = [line for line in said.lines if "runs again" in line]
    assert broker_died == []
    assert {status.state for status in services.status()} == {"ended", "absent"}


@pytest.mark.parametrize("on_purpose", [False, True])
def test_a_service_whose_owner_was_killed_belongs_to_its_next_user(
    make: Make, tmp_path: Path, on_purpose: bool
) -> None:
    argv = [sys.executable, "-c", LEAVE, str(tmp_path), *(["on-purpose"] if on_purpose else [])]
    assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    services = make()
    left = pids(services)
    services.start(["broker"])
    assert pids(services) == left
    assert services.stop() == ([] if on_purpose else ["broker"])
    assert bool(members(left["broker"])) == on_purpose


def test_an_owner_ends_the_services_started_in_its_name(make: Make) -> None:
    me = myself()
    make(owner=me).start(["broker"])  # as the child of `tidegate run` does, which is then killed
    assert make().stop() == []
    assert make(owner=me).stop() == ["broker"]
