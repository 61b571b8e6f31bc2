"""A crash of a local service loses no data; the shipped server configurations work."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from engine.local.services.local_services import LocalServices
from engine.local.services.ports import free_ports
from engine.local.services.program import ServiceName
from engine.local.services.valkey import binary

CONFIGS = Path(__file__).parents[4] / "conf" / "services"


@pytest.fixture
def first(tmp_path: Path) -> Iterator[LocalServices]:
    """Yield services that will crash."""
    services = LocalServices(tmp_path, mongo_cache_gb=0.25)
    yield services
    services.stop()


@pytest.fixture
def second(tmp_path: Path, first: LocalServices) -> Iterator[LocalServices]:
    """Yield services of the same folder, started after the crash."""
    services = LocalServices(tmp_path, mongo_cache_gb=0.25)
    yield services
    services.stop(everything=True, discard=True)


def kill(services: LocalServices, name: ServiceName) -> None:
    (pid,) = [status.pid for status in services.status() if status.name == name]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_kill_9_of_mongod_loses_no_write_acknowledged_by_a_majority(
    first: LocalServices, second: LocalServices
) -> None:
    url = first.start(["mongo"]).mongo_url
    acknowledged: list[int] = []
    enough = threading.Event()

    def write() -> None:
        with MongoClient(url, w="majority", retryWrites=False, timeoutMS=3_000) as client:
            try:
                for number in range(1_000_000):
                    client.x.y.insert_one({"_id": number})
                    acknowledged.append(number)
                    if number == 300:
                        enough.set()
            except PyMongoError:
                return

    writer = threading.Thread(target=write)
    writer.start()
    assert enough.wait(60)
    kill(first, "mongo")
    writer.join()
    with MongoClient(second.start(["mongo"]).mongo_url, timeoutMS=20_000) as client:
        kept = {document["_id"] for document in client.x.y.find()}
    assert set(acknowledged) <= kept


def test_kill_9_of_the_broker_loses_no_acknowledged_write(first: LocalServices, second: LocalServices) -> None:
    url = first.start(["broker"]).broker_url
    acknowledged: list[int] = []
    enough = threading.Event()

    def write() -> None:
        client = redis.Redis.from_url(url, retry=None)
        try:
            for number in range(1_000_000):
                client.set(f"key:{number}", number)
                acknowledged.append(number)
                if number == 3_000:
                    enough.set()
        except redis.RedisError:
            return
        finally:
            client.close()

    writer = threading.Thread(target=write)
    writer.start()
    assert enough.wait(60)
    kill(first, "broker")
    writer.join()
    again = redis.Redis.from_url(second.start(["broker"]).broker_url)
    lost = [number for number in acknowledged if again.get(f"key:{number}") is None]
    again.close()
    assert lost == []


@pytest.mark.parametrize(("name", "policy"), [("broker", "noeviction"), ("cache", "allkeys-lru")])
def test_mongod_and_valkey_accept_the_shipped_configurations(name: str, policy: str, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    own = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    with subprocess.Popen(
        [binary(), CONFIGS / f"valkey-{name}.conf", *own], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert any("Ready to accept connections" in line for line in server.stdout)
        client = redis.Redis(port=port, decode_responses=True)
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": policy}
        assert client.config_get("appendonly") == {"appendonly": "yes" if name == "broker" else "no"}
        client.close()
        server.terminate()
        server.communicate()
