"""What a user sees of a faulty service: in `check`, at a start, and while the engine runs."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from pymongo import MongoClient

from engine.clock import SystemClock
from engine.local.services.local_services import LocalServices
from engine.process_identity import birth_of
from engine.stores.migrations import migrate_mongo
from engine.stores.mongo.client import mongo_client
from engine.stores.search.log_index import LogIndex, open_client
from engine.telemetry.log_shipper import Shipper
from tests.support.broken_services import (
    OWNER,
    PASSWORD,
    PATIENCE,
    Search,
    error_of,
    guarded_mongod,
    mongod_of,
    refused_port,
    valkey_of,
)
from tests.support.installation import Installation, Told
from tests.support.pipeline_world import World

MALFORMED = f"mongodb://owner:{PASSWORD}/x@127.0.0.1:1/"


def told(done: Told, code: int, *words: str) -> None:
    """Check that a command ended with this code and one error of at most three lines, without traceback or secret."""
    assert done.code == code, done.err
    assert len(done.err.splitlines()) <= 3, done.err
    assert "Traceback" not in done.err
    assert PASSWORD not in done.out + done.err
    for word in words:
        assert word in done.err


@pytest.mark.parametrize(
    "command", [("check",), ("run",), ("up",), ("worker", "all"), ("status",), ("campaign", "list")]
)
def test_an_unreadable_address_ends_every_command_with_one_sentence(
    installation: Installation, command: tuple[str, ...]
) -> None:
    (installation.folder / "Procfile").write_text("web: sleep 1000\n")
    done = installation.call(*command, TIDEGATE_SERVICES__MONGO_URL=MALFORMED)
    told(done, 2, "services.mongo_url cannot be read", "percent-encode")


OPTIONS = [
    ("MONGO", "mongodb://127.0.0.1:27017/?replicaSett=x", "services.mongo_url cannot be read: Unknown option"),
    ("MONGO", f"mongodb://127.0.0.1:27017/?tls={PASSWORD}", "services.mongo_url cannot be read: The value of tls"),
    ("BROKER", f"redis://127.0.0.1:6379/0?socket_timeout={PASSWORD}", "services.broker_url cannot be read"),
    ("CACHE", f"redis://127.0.0.1:6379/0?max_connections={PASSWORD}", "services.cache_url cannot be read"),
]


@pytest.mark.parametrize("command", ["up", "run", "worker all"])
@pytest.mark.parametrize(("name", "url", "setting"), OPTIONS)
def test_a_wrong_option_of_an_address_ends_the_command_at_once(
    installation: Installation, command: str, name: str, url: str, setting: str
) -> None:
    (installation.folder / "Procfile").write_text("web: sleep 1000\n")
    done = installation.call(*command.split(), **{f"TIDEGATE_SERVICES__{name}_URL": url})
    told(done, 2, setting, "check its options")
    assert done.out == "", "nothing was begun"


def test_check_reports_the_fault_of_each_service(installation: Installation, tmp_path: Path) -> None:
    search = Search(401, error_of("security_exception"))
    replica = ("--replicaof", f"127.0.0.1 {refused_port()}")
    with (
        valkey_of(tmp_path / "replica", *replica) as broker,
        valkey_of(tmp_path / "full", "--maxmemory", "1", "--maxmemory-policy", "noeviction") as cache,
        search.serving() as elastic,
    ):
        done = installation.call(
            "check",
            "--json",
            TIDEGATE_SERVICES__BROKER_URL=f"redis://127.0.0.1:{broker}/0",
            TIDEGATE_SERVICES__CACHE_URL=f"redis://127.0.0.1:{cache}/0",
            TIDEGATE_SERVICES__ELASTIC_URL=f"http://127.0.0.1:{elastic}",
        )
        assert done.code == 3, "the search refuses the login"
        assert done.err == ""
        rows = {row["check"]: (row["ok"], row["told"]) for row in done.document}
        assert rows["mongodb"][0]
        assert rows["campaigns"][0]
        assert rows["broker"] == (False, "the broker is a read-only replica. give the address of its primary")
        assert "the cache is full" in rows["cache"][1]
        assert "refuses the login (401)" in rows["elasticsearch"][1]
        search.status, search.body = 200, {"status": "green"}
        lost = f"mongodb://{OWNER}:{PASSWORD}@127.0.0.1:{refused_port()}/?serverSelectionTimeoutMS=300"
        done = installation.call("check", TIDEGATE_SERVICES__MONGO_URL=lost)
        assert done.code == 3
        assert "MongoDB does not answer" in done.out
        assert done.out.count("not checked: the check of MongoDB failed") == 3, "campaigns, loops, indexes"
        assert PASSWORD not in done.out + done.err


@pytest.mark.parametrize("command", [("run",), ("worker", "all")])
def test_a_start_on_a_standalone_mongod_is_refused(
    installation: Installation, tmp_path: Path, command: tuple[str, ...]
) -> None:
    with mongod_of(tmp_path / "standalone") as port:
        done = installation.call(*command, TIDEGATE_SERVICES__MONGO_URL=f"mongodb://127.0.0.1:{port}/")
    assert done.err.splitlines() == [
        "tidegate: MongoDB is a standalone server, not a replica set",
        "  start mongod with --replSet NAME and call rs.initiate() once; change streams need it",
    ]
    assert done.code == 1


@pytest.mark.long(seconds=20)
def test_a_running_engine_survives_a_refusing_elasticsearch_and_a_full_broker(
    installation: Installation, tmp_path: Path
) -> None:
    search = Search(401, error_of("security_exception"))
    world = installation.world
    with valkey_of(tmp_path / "own", "--maxmemory-policy", "noeviction") as port, search.serving() as elastic:
        installation.env |= {
            "TIDEGATE_SERVICES__BROKER_URL": f"redis://127.0.0.1:{port}/0",
            "TIDEGATE_SERVICES__ELASTIC_URL": f"http://127.0.0.1:{elastic}",
            "TIDEGATE_ENGINE__RING_AGAIN": "1s",
        }
        process = installation.running()
        installation.until(lambda: installation.lines("service.lost"), "the search's refusal", process)
        with contextlib.closing(redis.Redis(port=port)) as broker:
            wrong = (("maxmemory", 1, 0), ("replicaof", f"127.0.0.1 {refused_port()}", "no one"))
            for number, (setting, bad, good) in enumerate(wrong):
                name = f"hello{number}"
                world.users([f"u{number}-{i}" for i in range(10)])
                world.apply({"campaign": name, "kind": "one_off"})
                set_to(broker, setting, bad)
                before = len(installation.lines("messenger.unheard"))
                world.launch(name)
                installation.until(
                    lambda n=before: len(installation.lines("messenger.unheard")) > n, "a lost ring", process
                )
                set_to(broker, setting, good)
                installation.until(lambda n=name: world.state(n) == "finished", f"the end of {name}", process)
        assert len(world.mails()) == 10 + 20
        world.check()
        (lost,) = installation.lines("service.lost")
        assert lost["error"]["message"] == "Elasticsearch refuses the login (401)"
        assert "Traceback" not in installation.said()
        assert installation.end(process) == 0


def rung_in_vain(installation: Installation, before: int) -> bool:
    """Return whether more wake-ups were lost than `before`."""
    return len(installation.lines("messenger.unheard")) > before


def set_to(server: redis.Redis, setting: str, value: object) -> None:
    if setting == "replicaof":
        server.execute_command("REPLICAOF", *str(value).split())
    else:
        server.config_set(setting, value)


@pytest.fixture
def guarded_world(tmp_path: Path, services: Any) -> Iterator[tuple[World, MongoClient[dict[str, Any]]]]:
    """Yield a world with only the rights of docs/operations.md, and the owner's client of its server."""
    with (
        guarded_mongod(tmp_path / "mongo") as address,
        MongoClient(f"mongodb://{OWNER}:{PASSWORD}@{address}/?replicaSet=guarded") as owner,
    ):
        owner.admin.command("createUser", "engine", pwd=PASSWORD, roles=RIGHTS)

        class Own:
            mongo_url = f"mongodb://engine:{PASSWORD}@{address}/?replicaSet=guarded"
            broker_url = services.broker_url

        with contextlib.closing(mongo_client(Own.mongo_url)) as client:
            migrate_mongo(client["tidegate"])
        world = World(owner["tidegate"], Own, tmp_path / "world")
        yield world, owner
        world.close()


RIGHTS = [{"role": "readWrite", "db": "tidegate"}, {"role": "dbAdmin", "db": "tidegate"}]


def test_revoked_rights_fail_no_user_and_the_engine_continues_once_restored(
    guarded_world: tuple[World, MongoClient[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, owner = guarded_world
    world.users([f"u{i}" for i in range(10)])
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    world.step()
    owner.admin.command("updateUser", "engine", roles=[{"role": "read", "db": "tidegate"}])
    with pytest.raises(world.app.stores.OUTAGES, match="not authorized"):
        world.settle()
    owner.admin.command("updateUser", "engine", roles=RIGHTS)
    world.settle()
    assert world.state("hello") == "finished"
    assert len(world.mails()) == 10
    for slice_ in owner["tidegate"]["slices"].find():
        assert slice_.get("errors", 0) == 0, "nobody's data was to blame"
    world.check()


def test_log_lines_wait_while_the_log_search_refuses_and_are_shipped_later(tmp_path: Path) -> None:
    line = b'{"@timestamp": "2026-01-01T00:00:00Z", "message": "kept"}\n'
    (tmp_path / "all-1.ndjson").write_bytes(line)
    search = Search(401, error_of("security_exception"))
    stop = threading.Event()
    with search.serving() as port:
        client = open_client(f"http://127.0.0.1:{port}")
        index = LogIndex(client, SystemClock())
        with contextlib.closing(client), contextlib.closing(Shipper(tmp_path, index)) as shipper:
            following = threading.Thread(target=shipper.run, args=(stop,))
            following.start()
            until(lambda: search.asked > 0, "the first refusal")
            assert shipper.waiting() == len(line)
            search.status, search.body = 200, {"errors": False, "items": [], "indices": [], "acknowledged": True}
            until(lambda: shipper.waiting() == 0, "the line")
            stop.set()
            following.join()


def until(fact: Callable[[], bool], what: str) -> None:
    """Wait until `fact` holds."""
    pause, deadline = threading.Event(), time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < deadline, what
        pause.wait(0.02)


def test_a_killed_child_of_run_leaves_no_service_behind(installation: Installation) -> None:
    """After a kill of its child and a SIGTERM, `tidegate run` leaves none of its own services."""
    for name in ("MONGO", "BROKER", "CACHE"):
        del installation.env[f"TIDEGATE_SERVICES__{name}_URL"]
    installation.env["TIDEGATE_SERVICES__ELASTIC_URL"] = f"http://127.0.0.1:{refused_port()}"
    process = installation.running()
    local = LocalServices(installation.folder / "var")
    (engine,) = psutil.Process(process.pid).children()
    engine.kill()
    installation.until(lambda: installation.said().count("tidegate runs:") == 2, "its return", process)
    pids = [status.pid for status in local.status() if status.pid is not None]
    assert len(pids) == 3
    (mongod,) = [status.pid for status in local.status() if status.name == "mongo"]
    assert mongod is not None
    psutil.Process(mongod).kill()
    installation.until(lambda: "mongo runs again" in installation.said(), "mongod's return", process)
    pids = [status.pid for status in local.status() if status.pid is not None]
    (engine,) = psutil.Process(process.pid).children()
    engine.kill()  # and told to end before a new child is forked
    assert installation.end(process, signal.SIGTERM) == 0
    assert [pid for pid in pids if birth_of(pid)] == []
    assert {status.state for status in local.status()} == {"ended", "absent"}
    local.stop(everything=True, discard=True)
