"""Every fault of every service gives one true sentence, an exit code, no secret and no traceback."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from elasticsearch import Elasticsearch
from pymongo import MongoClient

from actors.broker.redis_client import connect
from engine.errors import EngineError
from engine.stores.mongo.client import mongo_client, stream_client
from engine.stores.probes import (
    probe_broker,
    probe_cache,
    probe_mongo,
    probe_search,
    require_fit_mongo,
    require_fit_redis,
)
from engine.stores.search.client import elastic_client
from engine.stores.user_cache.connection import cache_client
from tests.support.broken_services import (
    OWNER,
    PASSWORD,
    READ_ONLY_USER,
    Search,
    behind_tls,
    error_of,
    guarded_mongod,
    mongod_of,
    refused_port,
    silent,
    valkey_of,
)

ANSWERED, UNREACHABLE, MALFORMED = 1, 3, 2
BRIEF = "socket_timeout=0.3&socket_connect_timeout=0.3"
QUICK = "serverSelectionTimeoutMS=500&connectTimeoutMS=500&socketTimeoutMS=500"


def told(probe: Callable[[], object], code: int, *words: str) -> None:
    """Check that `probe` raises an `EngineError` with this code and these words, in three lines, without a secret."""
    with pytest.raises(EngineError) as caught:
        probe()
    error = caught.value
    text = f"{error}\n{error.remedy}"
    assert error.exit_code == code, text
    assert error.remedy, text
    assert len(text.splitlines()) <= 3, text
    assert len(str(error)) < 300, text
    assert PASSWORD not in text
    for part in (PASSWORD[:4], PASSWORD[4:]):
        assert part not in text, text
    for word in words:
        assert word in text, text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broken")


@pytest.fixture(scope="module")
def standalone(folder: Path) -> Iterator[int]:
    with mongod_of(folder / "standalone") as port:
        yield port


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[str]:
    with guarded_mongod(folder / "guarded") as address:
        yield address


@pytest.fixture(scope="module")
def hanging() -> Iterator[int]:
    with silent() as port:
        yield port


@pytest.fixture(scope="module")
def tls_only() -> Iterator[int]:
    with behind_tls() as port:
        yield port


def ask_mongo(url: str) -> str:
    with contextlib.closing(mongo_client(url)) as client:
        return probe_mongo(client["tidegate"])


class TestMongo:
    def test_a_serving_server_is_reported_with_its_version_and_the_probe_leaves_nothing(self, guarded: str) -> None:
        url = f"mongodb://{OWNER}:{PASSWORD}@{guarded}/?replicaSet=guarded"
        assert ask_mongo(url).startswith("6.")
        with MongoClient(url) as client:
            assert client["tidegate"]["leases"].count_documents({}) == 0

    def test_a_refused_connection_is_reported(self) -> None:
        told(lambda: ask_mongo(f"mongodb://127.0.0.1:{refused_port()}/?{QUICK}"), UNREACHABLE, "refused", "tidegate up")

    def test_an_unknown_host_is_reported(self) -> None:
        told(lambda: ask_mongo(f"mongodb://no-such-host.invalid/?{QUICK}"), UNREACHABLE, "does not answer")

    def test_missing_dns_records_are_reported(self) -> None:
        told(lambda: ask_mongo(f"mongodb+srv://u:{PASSWORD}@no-such.invalid.test/?{QUICK}"), UNREACHABLE, "DNS")

    def test_a_hanging_server_costs_the_time_that_the_address_allows(self, hanging: int) -> None:
        began = time.monotonic()
        told(lambda: ask_mongo(f"mongodb://127.0.0.1:{hanging}/?{QUICK}"), UNREACHABLE, "does not answer")
        assert time.monotonic() - began < 5

    @pytest.mark.parametrize("open_client", [mongo_client, stream_client])
    def test_the_selection_time_of_the_address_holds(self, open_client: Any) -> None:
        url = f"mongodb://127.0.0.1:{refused_port()}/?serverSelectionTimeoutMS=300"
        with contextlib.closing(open_client(url)) as client:
            began = time.monotonic()
            told(lambda: probe_mongo(client["tidegate"]), UNREACHABLE)
            assert 0.2 < time.monotonic() - began < 5

    def test_a_wrong_password_is_reported(self, guarded: str) -> None:
        told(lambda: ask_mongo(f"mongodb://{OWNER}:{PASSWORD}x@{guarded}/"), UNREACHABLE, "refuses the login")

    def test_a_missing_password_is_reported(self, guarded: str) -> None:
        told(lambda: ask_mongo(f"mongodb://{guarded}/?replicaSet=guarded"), ANSWERED, "does not allow it", "rights")

    def test_missing_rights_are_reported(self, guarded: str) -> None:
        url = f"mongodb://{READ_ONLY_USER}:{PASSWORD}@{guarded}/?replicaSet=guarded"
        told(lambda: ask_mongo(url), ANSWERED, "does not allow it", "update", "rights")

    def test_a_standalone_server_is_refused(self, standalone: int) -> None:
        told(lambda: ask_mongo(f"mongodb://127.0.0.1:{standalone}/"), ANSWERED, "standalone", "--replSet")

    def test_a_replica_set_of_another_name_is_refused(self, guarded: str) -> None:
        told(lambda: ask_mongo(f"mongodb://{guarded}/?replicaSet=other&{QUICK}"), UNREACHABLE, "other")

    def test_tls_to_a_plain_server_is_reported(self, standalone: int) -> None:
        told(lambda: ask_mongo(f"mongodb://127.0.0.1:{standalone}/?tls=true&{QUICK}"), UNREACHABLE, "TLS")

    def test_an_untrusted_certificate_is_reported(self, tls_only: int) -> None:
        told(lambda: ask_mongo(f"mongodb://127.0.0.1:{tls_only}/?tls=true&{QUICK}"), UNREACHABLE, "TLS")

    def test_a_server_of_another_protocol_is_reported(self) -> None:
        with Search(200, "<html>").serving() as port:
            told(lambda: ask_mongo(f"mongodb://127.0.0.1:{port}/?{QUICK}"), UNREACHABLE, "does not answer")

    @pytest.mark.parametrize(
        ("hello", "version", "words"),
        [
            ({"setName": "x", "isWritablePrimary": True}, "5.0.31", "too old"),
            ({"isWritablePrimary": True}, "6.0.0", "standalone"),
            ({"setName": "x", "secondary": True}, "7.0.1", "read-only secondary"),
        ],
    )
    def test_an_unfit_server_is_refused_by_its_hello(self, hello: Any, version: str, words: str) -> None:
        told(lambda: require_fit_mongo(hello, version), ANSWERED, words)

    @pytest.mark.parametrize("hello", [{"setName": "x", "isWritablePrimary": True}, {"msg": "isdbgrid", "ismaster": 1}])
    def test_a_replica_set_and_a_sharded_cluster_are_fit(self, hello: Any) -> None:
        require_fit_mongo(hello, "6.0.14")


REDISES = pytest.mark.parametrize(
    ("name", "ask"),
    [
        ("the broker", lambda url: _ask_redis(probe_broker, connect, url)),
        ("the cache", lambda url: _ask_redis(probe_cache, cache_client, url)),
    ],
    ids=["broker", "cache"],
)


def _ask_redis(probe: Any, open_client: Any, url: str) -> str:
    with contextlib.closing(open_client(url)) as client:
        return str(probe(client, "tidegate"))


@pytest.fixture(scope="module")
def locked(folder: Path) -> Iterator[int]:
    """A server with passwords.

    The user `reader` may only read, `worker` may do all that the engine needs except INFO and CONFIG.
    """
    with valkey_of(folder / "locked", password=PASSWORD) as port:
        with contextlib.closing(redis.Redis(port=port, password=PASSWORD)) as client:
            client.execute_command("ACL", "SETUSER", "reader", "on", f">{PASSWORD}", "~*", "+@read", "+ping", "+info")
            client.execute_command(
                *("ACL", "SETUSER", "worker", "on", f">{PASSWORD}", "~tidegate:*", "&*"),
                *("+@all", "-@admin", "-@dangerous"),
            )
        yield port


@pytest.fixture(scope="module")
def replica(folder: Path, locked: int) -> Iterator[int]:
    with valkey_of(folder / "replica", "--replicaof", f"127.0.0.1 {refused_port()}") as port:
        yield port


@pytest.fixture(scope="module")
def full(folder: Path) -> Iterator[int]:
    """A full server that refuses writes and evicts nothing."""
    with valkey_of(folder / "full", "--maxmemory", "1", "--maxmemory-policy", "noeviction") as port:
        yield port


@REDISES
class TestRedis:
    def test_a_serving_server_is_reported_with_its_version_and_the_probe_leaves_nothing(
        self, name: str, ask: Any, broker_url: str, broker_redis: redis.Redis
    ) -> None:
        assert ask(broker_url)[0].isdigit()
        assert broker_redis.dbsize() == 0

    def test_a_user_with_the_rights_that_it_needs_serves(self, name: str, ask: Any, locked: int) -> None:
        assert ask(f"redis://worker:{PASSWORD}@127.0.0.1:{locked}/0")

    def test_a_refused_connection_is_reported(self, name: str, ask: Any) -> None:
        told(lambda: ask(f"redis://127.0.0.1:{refused_port()}/0"), UNREACHABLE, name, "refused", "tidegate up")

    def test_a_hanging_server_is_reported(self, name: str, ask: Any, hanging: int) -> None:
        told(lambda: ask(f"redis://127.0.0.1:{hanging}/0?{BRIEF}"), UNREACHABLE, name, "sends nothing")

    @pytest.mark.parametrize("login", ["", f":x{PASSWORD[:3]}@", "worker:wrong@"])
    def test_a_wrong_or_missing_password_is_reported(self, name: str, ask: Any, locked: int, login: str) -> None:
        told(lambda: ask(f"redis://{login}127.0.0.1:{locked}/0"), UNREACHABLE, name, "refuses the login")

    def test_missing_rights_are_reported(self, name: str, ask: Any, locked: int) -> None:
        url = f"redis://reader:{PASSWORD}@127.0.0.1:{locked}/0"
        told(lambda: ask(url), ANSWERED, name, "does not allow it", "set", "rights")

    def test_a_read_only_replica_is_refused(self, name: str, ask: Any, replica: int) -> None:
        told(lambda: ask(f"redis://127.0.0.1:{replica}/0"), ANSWERED, name, "read-only replica", "primary")

    def test_a_full_server_is_reported(self, name: str, ask: Any, full: int) -> None:
        told(lambda: ask(f"redis://127.0.0.1:{full}/0"), ANSWERED, name, "full", "maxmemory")

    def test_tls_to_a_plain_server_is_reported(self, name: str, ask: Any, full: int) -> None:
        told(lambda: ask(f"rediss://127.0.0.1:{full}/0?{BRIEF}"), UNREACHABLE, name, "TLS")

    def test_an_untrusted_certificate_is_reported(self, name: str, ask: Any, tls_only: int) -> None:
        told(lambda: ask(f"rediss://127.0.0.1:{tls_only}/0"), UNREACHABLE, name, "TLS")

    def test_a_plain_connection_to_a_tls_server_is_reported(self, name: str, ask: Any, tls_only: int) -> None:
        told(lambda: ask(f"redis://127.0.0.1:{tls_only}/0"), UNREACHABLE, name)

    def test_a_server_of_another_protocol_is_reported(self, name: str, ask: Any) -> None:
        with Search(400, "<html>").serving() as port:
            told(lambda: ask(f"redis://127.0.0.1:{port}/0"), UNREACHABLE, name)

    def test_a_too_old_server_is_refused(self, name: str, ask: Any) -> None:
        told(lambda: require_fit_redis({"redis_version": "5.0.14", "role": "master"}, name), ANSWERED, name, "too old")


def test_a_broker_that_evicts_is_refused_and_such_a_cache_is_not(cache_url: str) -> None:
    told(lambda: _ask_redis(probe_broker, connect, cache_url), ANSWERED, "evicts", "noeviction")
    assert _ask_redis(probe_cache, cache_client, cache_url)


def ask_search(url: str, **more: Any) -> str:
    with contextlib.closing(elastic_client(url, **more)) as client:
        return probe_search(client, "tidegate-users")


class TestSearch:
    def test_a_refused_connection_is_reported(self) -> None:
        told(lambda: ask_search(f"http://127.0.0.1:{refused_port()}"), UNREACHABLE, "does not answer")

    def test_a_hanging_server_is_reported(self, hanging: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("engine.stores.probes.SEARCH_SECONDS", 0.3)
        with contextlib.closing(elastic_client(f"http://127.0.0.1:{hanging}")) as client:
            told(lambda: probe_search(client, "x"), UNREACHABLE, "sends nothing")

    @pytest.mark.parametrize(
        ("status", "body", "code", "words"),
        [
            (401, error_of("security_exception"), UNREACHABLE, "refuses the login"),
            (403, error_of("security_exception"), ANSWERED, "does not allow it"),
            (403, error_of("cluster_block_exception"), ANSWERED, "takes no writes"),
            (429, error_of("circuit_breaking_exception"), UNREACHABLE, "too busy"),
            (503, error_of("master_not_discovered_exception"), UNREACHABLE, "too busy"),
            (406, error_of("media_type_header_exception"), ANSWERED, "too old"),
            (400, error_of("media_type_header_exception"), ANSWERED, "too old"),
            (500, error_of("illegal_state_exception"), ANSWERED, "500 illegal_state_exception"),
            (200, {"hello": "world"}, UNREACHABLE, "not Elasticsearch"),
            (200, [], UNREACHABLE, "not Elasticsearch"),
            (200, "<html>login</html>", UNREACHABLE, "not Elasticsearch"),
            (200, {"status": "red"}, ANSWERED, "red"),
        ],
    )
    def test_a_refusing_answer_of_elasticsearch_is_reported(
        self, status: int, body: Any, code: int, words: str
    ) -> None:
        with Search(status, body).serving() as port:
            told(lambda: ask_search(f"http://127.0.0.1:{port}"), code, words)

    def test_another_product_is_refused(self) -> None:
        with Search(200, {"status": "green"}, product=False).serving() as port:
            told(lambda: ask_search(f"http://127.0.0.1:{port}"), UNREACHABLE, "not Elasticsearch")

    def test_tls_to_a_plain_server_is_reported(self) -> None:
        with Search(200, {"status": "green"}).serving() as port:
            told(lambda: ask_search(f"https://127.0.0.1:{port}"), UNREACHABLE, "TLS")

    def test_an_untrusted_certificate_is_reported(self, tls_only: int) -> None:
        told(lambda: ask_search(f"https://127.0.0.1:{tls_only}"), UNREACHABLE, "TLS")

    def test_a_missing_certificate_file_is_reported(self) -> None:
        told(lambda: ask_search("https://127.0.0.1:1", ca_certificate="/no/ca.pem"), MALFORMED, "/no/ca.pem")

    @pytest.mark.elastic
    def test_an_index_on_a_nearly_full_disk_is_reported(
        self, elastic: Elasticsearch, index_prefix: str, services: Any
    ) -> None:
        elastic.indices.create(index=f"{index_prefix}1", aliases={f"{index_prefix}users": {}})
        with contextlib.closing(elastic_client(services.elastic_url)) as client:
            assert probe_search(client, f"{index_prefix}users") in {"green", "yellow"}
            assert probe_search(client, "there-is-none") in {"green", "yellow"}
            block = {"index.blocks.read_only_allow_delete": True}  # what Elasticsearch sets at its flood stage
            elastic.indices.put_settings(index=f"{index_prefix}1", settings=block)
            told(lambda: probe_search(client, f"{index_prefix}users"), ANSWERED, "takes no writes", "make room")
            elastic.indices.put_settings(index=f"{index_prefix}1", settings=dict.fromkeys(block))
            assert probe_search(client, f"{index_prefix}users") in {"green", "yellow"}
