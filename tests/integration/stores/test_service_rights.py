"""A campaign runs with exactly the rights that `docs/rights.md` names, on real services that check them."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
import redis
from pydantic import SecretStr
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from actors.broker.broker import build_broker
from actors.broker.queue_admin import depths
from engine.domain.document import Document
from engine.local.services.mongod import Mongod
from engine.local.services.ports import free_ports
from engine.stores.migrations import migrate_mongo
from tests.support.pipeline_world import World

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "rights.md").read_text(encoding="utf-8")
rig = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "stock" / "rig.py")))
PASSWORD = "a-password"  # of servers that run as long as this test


def from_page(call: str) -> Document:
    """Return the argument of a mongosh call on the page."""
    match = re.search(rf"db\.{call}\((\{{.*?\}})\)\n```", PAGE, re.DOTALL)
    assert match is not None, f"docs/rights.md has no {call}"
    document: Document = json.loads(match[1].replace("PASSWORD", PASSWORD))
    return document


def acl_lines() -> list[str]:
    """Return the users of broker and cache on the page."""
    return [line.replace("PASSWORD", PASSWORD) for line in re.findall(r"^user tidegate .*$", PAGE, re.MULTILINE)]


@pytest.fixture(scope="module")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a mongod with passwords, with the page's role and user."""
    folder = tmp_path_factory.mktemp("guarded")
    key = folder / "key"
    key.write_text("x" * 64)
    key.chmod(0o600)
    program, ports = Mongod(0.25), free_ports(1)
    command = program.command(folder, ports, print).argv
    server = subprocess.Popen([*command, "--keyFile", str(key)], stdout=subprocess.DEVNULL)
    try:
        admin = MongoClient[Document]("127.0.0.1", ports[0], directConnection=True, serverSelectionTimeoutMS=20_000)
        member = {"_id": 0, "host": f"127.0.0.1:{ports[0]}"}
        # Until there is a user, any local client may initiate the set and create the first one.
        admin.admin.command("replSetInitiate", {"_id": "tidegate", "members": [member]})
        rig.wait_for(lambda: admin.admin.command("hello").get("isWritablePrimary"), what="a primary")
        admin.admin.command("createUser", "root", pwd=PASSWORD, roles=["root"])
        admin.close()
        root = MongoClient[Document](f"mongodb://root:{PASSWORD}@127.0.0.1:{ports[0]}/?replicaSet=tidegate")
        role, user = from_page("createRole"), from_page("createUser")
        root.admin.command("createRole", role.pop("role"), **role)
        root.admin.command("createUser", user.pop("user"), **user)
        root.close()
        yield f"mongodb://tidegate:{PASSWORD}@127.0.0.1:{ports[0]}/?replicaSet=tidegate&authSource=admin"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def valkeys(tmp_path: Path) -> Iterator[list[str]]:
    """Yield the addresses of broker and cache for the page's users; default users are off.

    Check that nothing was refused.
    """
    servers, addresses = [], []
    for name, line in zip(("broker", "cache"), acl_lines(), strict=True):
        server = rig.Valkey(tmp_path / name)
        servers.append(server)
        server.client.execute_command("ACL", "SETUSER", "root", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        server.client.execute_command("ACL", "SETUSER", *line.split()[1:])
        server.client.execute_command("ACL", "SETUSER", "default", "off")
        addresses.append(f"redis://tidegate:{PASSWORD}@127.0.0.1:{server.port}/0")
    yield addresses
    refused = []
    for server in servers:
        with redis.Redis(port=server.port, username="root", password=PASSWORD, protocol=2) as root:
            refused += root.execute_command("ACL", "LOG")
        server.kill()
    assert refused == []


@pytest.fixture
def guarded(mongo: str, valkeys: list[str], tmp_path: Path) -> Iterator[World]:
    """A whole engine with the page's rights."""
    with MongoClient[Document](mongo) as client:
        database = client["tidegate"]
        migrate_mongo(database)
        addresses = SimpleNamespace(mongo_url=mongo, broker_url=valkeys[0])
        world = World(database, addresses, tmp_path / "world", at=0)
        world.close()
        services = world.settings.services.model_copy(update={"cache_url": SecretStr(valkeys[1])})
        world.settings = world.settings.model_copy(update={"services": services})
        world.app = world.open()
        yield world
        world.close()


def test_a_campaign_runs_to_its_last_mail_with_just_the_rights_of_the_page(guarded: World) -> None:
    guarded.users([f"u{number}" for number in range(20)])
    guarded.event("u1", "Order Completed")
    guarded.start({"campaign": "hello", "kind": "one_off"})
    assert guarded.state("hello") == "finished"
    assert len(guarded.sent()) == 20
    services = guarded.settings.services
    variables = {
        f"TIDEGATE_SERVICES__{name.upper()}_URL": url.get_secret_value()
        for name, url in (("mongo", services.mongo_url), ("broker", services.broker_url), ("cache", services.cache_url))
        if url is not None
    }
    result = subprocess.run(
        [sys.executable, "-c", "from engine.cli.main import main; main()", "check", "--json"],
        cwd=guarded.folder, env={**os.environ, **variables, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "evicts nothing" in result.stdout


def test_the_broker_works_with_just_the_rights_of_the_page(valkeys: list[str]) -> None:
    done: list[int] = []
    broker = build_broker(valkeys[0], lanes=["lane"], namespace="tidegate:tidegate", maintenance_chance=1_000_000)
    options: dict[str, Any] = {"max_retries": 0, "time_limit": 10_000, "queue_name": "lane"}
    work = dramatiq.actor(done.append, broker=broker, actor_name="work", **options)
    # A process that died long ago: maintenance requeues its messages and forgets it.
    heartbeats = "tidegate:tidegate:__heartbeats__"
    broker.client.zadd(heartbeats, {"dead": 0})
    with rig.running(broker):
        for number in range(20):
            work.send(number)
        work.send_with_options(args=(20,), delay=50)
        rig.wait_for(lambda: len(done) == 21, what="all messages")
        rig.wait_for(lambda: broker.client.zscore(heartbeats, "dead") is None, 30, "maintenance")
        assert [depth.ready for depth in depths(broker)] == [0]


def test_rights_that_the_page_does_not_grant_are_refused(mongo: str, valkeys: list[str]) -> None:
    with MongoClient[Document](mongo) as client:
        for forbidden in (
            lambda: client["tidegate"].drop_collection("users"),
            lambda: client["other"]["users"].insert_one({}),
            lambda: client["other"]["users"].find_one(),
            lambda: client.admin.command("serverStatus"),
            lambda: client.drop_database("tidegate"),
        ):
            with pytest.raises(OperationFailure, match="not authorized"):
                forbidden()
    for address in valkeys:
        with redis.Redis.from_url(address) as client_:
            for words in (["FLUSHALL"], ["CONFIG", "SET", "maxmemory", "1"], ["SET", "other", "1"], ["SHUTDOWN"]):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client_.execute_command(*words)
    for server_address in valkeys:
        port = int(server_address.rpartition(":")[2].partition("/")[0])
        with redis.Redis(port=port, username="root", password=PASSWORD, protocol=2) as root:
            root.execute_command("ACL", "LOG", "RESET")
