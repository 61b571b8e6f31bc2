"""The local services: started, reused, ended; services of a killed run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from pymongo import MongoClient

from engine.errors import ServiceUnreachable
from engine.local.processes.process_groups import members
from engine.local.services.addresses import Urls
from engine.local.services.local_services import LocalServices
from engine.local.services.program import CannotStart

NEEDED = ("mongo", "broker", "cache")
START_AND_HANG = """
import signal, sys
from pathlib import Path
from engine.local.services.local_services import LocalServices
LocalServices(Path(sys.argv[1])).start(["broker", "cache"])
print("started", flush=True)
signal.pause()
"""
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


def set_name(url: str) -> str:
    with MongoClient(url, timeoutMS=10_000) as client:
        return str(client.admin.command("hello")["setName"])


def put(url: str, key: str, value: str) -> None:
    client = redis.Redis.from_url(url)
    client.set(key, value)
    client.close()


def get(url: str, key: str) -> bytes | None:
    client = redis.Redis.from_url(url)
    try:
        return client.get(key)
    finally:
        client.close()


def config(url: str, name: str) -> str:
    client = redis.Redis.from_url(url, decode_responses=True)
    try:
        return str(client.config_get(name)[name])
    finally:
        client.close()


def start_and_kill(folder: Path) -> None:
    """A run that starts broker and cache, and is killed before it can end them."""
    run = subprocess.Popen([sys.executable, "-c", START_AND_HANG, str(folder)], stdout=subprocess.PIPE, text=True)
    with run:
        assert run.stdout is not None
        assert run.stdout.readline() == "started\n"
        run.kill()


def test_a_start_brings_a_replica_set_a_durable_broker_and_a_forgetful_cache(make: Make) -> None:
    urls = make(cache_memory="20mb").start(NEEDED)
    assert set_name(urls.mongo_url) == "tidegate"
    assert config(urls.broker_url, "appendonly") == "yes"
    assert config(urls.broker_url, "maxmemory-policy") == "noeviction"
    assert config(urls.cache_url, "appendonly") == "no"
    assert config(urls.cache_url, "maxmemory-policy") == "allkeys-lru"
    assert config(urls.cache_url, "maxmemory") == str(20 * 1024 * 1024)
    assert urls.elastic_url is None


def test_a_restart_keeps_addresses_and_data_and_a_stop_leaves_no_process(make: Make) -> None:
    first = make()
    before = first.start(NEEDED)
    with MongoClient(before.mongo_url, w="majority") as client:
        client.x.y.insert_one({"_id": 1})
    put(before.broker_url, "kept", "yes")
    started = pids(first)
    assert set(first.stop()) == set(NEEDED)
    assert not [pid for pid in started.values() if psutil.pid_exists(pid)]
    again = make().start(NEEDED)
    assert again == before
    with MongoClient(again.mongo_url) as client:
        assert client.x.y.count_documents({}) == 1
    assert get(again.broker_url, "kept") == b"yes"


def test_a_service_whose_port_was_taken_meanwhile_moves_with_its_data(make: Make) -> None:
    first = make()
    before = first.start(["mongo"])
    with MongoClient(before.mongo_url, w="majority") as client:
        client.x.y.insert_one({"_id": 1})
    first.stop()
    port = json.loads((first.var / "services.json").read_text())["mongo"]["ports"][0]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        moved = make().start(["mongo"])
    assert moved.mongo_url != before.mongo_url
    with MongoClient(moved.mongo_url, w="majority", timeoutMS=20_000) as client:
        assert client.x.y.count_documents({}) == 1
        client.x.y.insert_one({"_id": 2})


def test_running_services_are_used_again_and_only_their_starter_ends_them(make: Make) -> None:
    first, second = make(), make()
    urls = first.start(["broker", "cache"])
    before = pids(first)
    assert second.start(["broker", "cache"]) == urls
    assert second.stop() == []
    assert pids(first) == before
    assert set(first.stop()) == {"broker", "cache"}


def test_concurrent_starts_share_one_set_of_services(make: Make) -> None:
    both: list[Urls] = []
    threads = [threading.Thread(target=lambda: both.append(make().start(["broker", "cache"]))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert both[0] == both[1]


def test_services_of_a_killed_run_are_recognised_and_reused(make: Make, tmp_path: Path) -> None:
    start_and_kill(tmp_path)
    services = make()
    left = pids(services)
    assert set(left) == {"broker", "cache"}
    services.start(["broker", "cache"])
    assert pids(services) == left
    assert set(services.stop(everything=True)) == {"broker", "cache"}
    assert not [pid for pid in left.values() if psutil.pid_exists(pid) and members(pid)]


def test_unrecorded_services_of_a_killed_run_are_ended_before_a_start(make: Make, tmp_path: Path) -> None:
    start_and_kill(tmp_path)
    services = make()
    left = pids(services)
    (tmp_path / "services.json").unlink()
    services.start(["broker"])
    assert not members(left["broker"])
    assert members(pids(services)["broker"])
    (tmp_path / "services.json").unlink()
    make().start(["broker", "cache"])  # so that the fixture knows them


def test_a_foreign_process_with_a_recorded_pid_is_not_ended(make: Make, tmp_path: Path) -> None:
    services = make()
    services.start(["broker"])
    services.stop()
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as stranger:
        record = json.loads((tmp_path / "services.json").read_text())
        record["broker"]["process"] = {"pid": stranger.pid, "birth": "another boot:1"}
        (tmp_path / "services.json").write_text(json.dumps(record))
        assert pids(services) == {}
        make().stop(everything=True)
        assert stranger.poll() is None
        stranger.kill()


def test_a_given_address_is_used_and_nothing_is_started(make: Make) -> None:
    schemes = {"mongo": "mongodb", "broker": "rediss", "cache": "rediss", "elastic": "https"}
    options = {"mongo": "?tls=true"}
    given = {name: f"{scheme}://user:pw@{name}.example/{options.get(name, '')}" for name, scheme in schemes.items()}
    services = make(addresses=given)
    urls = services.start()
    assert urls.mongo_url == given["mongo"]
    assert urls.elastic_url == given["elastic"]
    assert urls.environment()["TIDEGATE_SERVICES__CACHE_URL"] == given["cache"]
    assert {status.state for status in services.status()} == {"given"}
    assert services.running() == urls


def test_asking_for_running_services_names_the_one_that_does_not_run(make: Make) -> None:
    with pytest.raises(ServiceUnreachable, match="mongo") as caught:
        make().running()
    assert "tidegate up" in caught.value.remedy


def test_a_service_that_does_not_start_is_reported_with_its_last_output(make: Make) -> None:
    with pytest.raises(CannotStart, match=r"(?s)cache: it does not start.*memory"):
        make(cache_memory="lots").start(["cache"])


def test_without_java_the_other_services_run_and_a_note_names_the_cost(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "cjdk", None)
    services = make()
    urls = services.start(["broker", "cache", "elastic"])
    assert urls.elastic_url is None
    assert get(urls.broker_url, "x") is None
    (note,) = services.notes
    assert "running without Elasticsearch" in note
    assert "openjdk-17-jre-headless" in note


@pytest.mark.elastic
def test_elasticsearch_runs_without_root_and_ends_with_launcher_and_server(make: Make) -> None:
    services = make()
    url = services.elastic_url()
    if url is None:
        reason = services.notes[0]
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    launcher = pids(services)["elastic"]
    group = members(launcher)
    assert len(group) >= 2
    assert "root" not in {psutil.Process(pid).username() for pid in group}
    home = Path(json.loads((services.var / "services.json").read_text())["elastic"]["home"])
    if os.geteuid() == 0:
        assert home.parent.parts == ("/", "var", "tmp")
        assert home.stat().st_mode & 0o077 == 0
    services.stop(discard=True)
    assert members(launcher) == []
    assert not home.exists()
