"""Refuse unreadable service addresses without quoting any part of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from actors.broker.redis_client import connect
from engine.errors import WrongCall
from engine.service_addresses import MONGO, REDIS, SEARCH, require_readable, search_address
from engine.stores.mongo.client import mongo_client, redis_client, stream_client
from engine.stores.search.client import elastic_client
from engine.stores.user_cache.connection import cache_client

OPENERS: dict[Callable[[str], Any], tuple[str, str]] = {
    mongo_client: ("mongodb", "services.mongo_url"),
    stream_client: ("mongodb", "services.mongo_url"),
    redis_client: ("redis", "services.broker_url"),
    connect: ("rediss", "services.broker_url"),
    cache_client: ("redis", "services.cache_url"),
    elastic_client: ("https", "services.elastic_url"),
}
SECRET_PIECES = ("hun", "ter", "2")


@pytest.mark.parametrize("open_client", OPENERS, ids=lambda opener: opener.__name__)
@pytest.mark.parametrize(
    "rest",
    [
        "user:hun/ter2@host:1234",
        "user:hun?ter2@host:1234/0",
        "user:hun#ter2@host:1234",
        "user:hun@ter2@host:1234",
        "user:hun[ter2@host:1234",
        "user:hun]ter2@host:1234",
        "user:hun%ter2@host:1234",
        "user:hun ter2@host:1234",
        "user:hunter2@host:port",
        "user:hunter2@host:99999",
        "user:hunter2@",
        "user:hunter2@host:1,",
        ":hun/ter2@host",
        "",
        "ho st",
        "[::1",
    ],
)
def test_an_unreadable_address_is_refused_without_its_secret(open_client: Any, rest: str) -> None:
    scheme, setting = OPENERS[open_client]
    with pytest.raises(WrongCall) as caught:
        open_client(f"{scheme}://{rest}")
    text = f"{caught.value}\n{caught.value.remedy}"
    assert text.startswith(f"{setting} cannot be read")
    assert len(text.splitlines()) == 2
    for secret_piece in SECRET_PIECES[:2]:
        assert secret_piece not in text.replace("character", ""), text


@pytest.mark.parametrize("open_client", OPENERS, ids=lambda opener: opener.__name__)
@pytest.mark.parametrize("text", ["", "host:1234", "ftp://user:hunter2@host", "hunter2", "://x"])
def test_another_scheme_is_refused(open_client: Any, text: str) -> None:
    with pytest.raises(WrongCall, match="does not begin with") as caught:
        open_client(text)
    assert "hunter2" not in f"{caught.value}{caught.value.remedy}"


@pytest.mark.parametrize(
    "option",
    [
        "timeoutMS=hunter2",
        "sererSelectionTimeoutMS=1",
        "w=1&readPreference=hunter2",
        "tls=hunter2",
        "x",
        "readConcernLevel=hunter2",
    ],
)
def test_an_option_that_mongodb_does_not_know_is_refused_without_its_value(option: str) -> None:
    with pytest.raises(WrongCall) as caught:
        mongo_client(f"mongodb://host/?{option}")
    text = f"{caught.value}\n{caught.value.remedy}"
    assert text.startswith("services.mongo_url cannot be read")
    assert "hunter2" not in text
    assert len(text.splitlines()) == 2


@pytest.mark.parametrize(
    ("url", "schemes"),
    [
        ("mongodb://a:1,b:2,c/x?replicaSet=r", MONGO),
        ("mongodb+srv://u:p%40ss%2F@cluster.example/?tls=true&appName=a@b", MONGO),
        ("mongodb://%2Ftmp%2Fmongodb-27017.sock/x", MONGO),
        ("mongodb://[::1]:27017", MONGO),
        ("redis://:pa:ss@127.0.0.1:6379/0", REDIS),
        ("rediss://user:p%3F@host.example/12?ssl_cert_reqs=none", REDIS),
        ("redis://host", REDIS),
        ("unix:///run/valkey.sock?db=1", REDIS),
        ("https://user:pw@search.example:9243/path", SEARCH),
    ],
)
def test_readable_addresses_are_accepted(url: str, schemes: tuple[str, ...]) -> None:
    require_readable("services.x_url", url, schemes)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://search.example", "https://search.example:443"),
        ("https://u:p@search.example/path", "https://u:p@search.example:443/path"),
        ("http://search", "http://search:9200"),
        ("http://search:9201", "http://search:9201"),
        ("http://[::1]", "http://[::1]:9200"),
    ],
)
def test_a_search_address_without_a_port_gets_the_usual_one(url: str, address: str) -> None:
    assert search_address("services.elastic_url", url) == address


@pytest.mark.parametrize(
    ("scheme", "option"),
    [
        ("redis", "foo=hunter2"),
        ("redis", "decode_responses=true"),
        ("redis", "protocol=3"),
        ("redis", "retry_on_timeout=true"),
        ("redis", "socket_timeout=hunter2"),
        ("redis", "db=hunter2"),
        ("redis", "max_connections=hunter2"),
        ("redis", "ssl_ca_certs=hunter2"),
        ("rediss", "ssl_cert_reqs=hunter2"),
        ("mongodb", "foo=hunter2"),
        ("mongodb", "tls=hunter2"),
        ("mongodb", "tls=true&tlsCAFile=/hunter2"),
        ("mongodb", "maxPoolSize=hunter2"),
        ("mongodb", "authMechanism=hunter2"),
    ],
)
def test_an_unusable_option_is_refused_before_connecting(scheme: str, option: str) -> None:
    for open_client, (kind, setting) in OPENERS.items():
        if kind.rstrip("s") != scheme.rstrip("s"):
            continue
        with pytest.raises(WrongCall) as caught:
            open_client(f"{scheme}://user:hunter2@host/0?{option}")
        text = f"{caught.value}\n{caught.value.remedy}"
        assert text.startswith(f"{setting} cannot be read")
        assert "hunter2" not in text


@pytest.mark.parametrize("key", ["hunter2\n", "hun\r\nter2", "huntér2"])
def test_an_unsendable_key_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(WrongCall, match="elastic_api_key cannot be read") as caught:
        elastic_client("http://host:9200", api_key=key)
    assert not any(part in f"{caught.value}{caught.value.remedy}" for part in ("hun", "ter2"))
