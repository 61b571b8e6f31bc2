from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.local.processes.supervisor import Backoff
from engine.local.services.addresses import Urls, without_secrets
from engine.local.services.registry_file import Entry, Record
from engine.process_identity import Born


def test_the_environment_omits_services_that_do_not_run() -> None:
    assert Urls("m", "b", "c", None).environment() == {
        "TIDEGATE_SERVICES__MONGO_URL": "m",
        "TIDEGATE_SERVICES__BROKER_URL": "b",
        "TIDEGATE_SERVICES__CACHE_URL": "c",
    }


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0"),
        ("rediss://:p%40ss@host:6380/1", "rediss://***@host:6380/1"),
        ("mongodb://u:p@a:1,b:2/x?tls=true", "mongodb://***@a:1,b:2/x?tls=true"),
        ("https://u:p@host/", "https://***@host/"),
        ("mongodb://u:p/q@s?s#w@a:1/x", "mongodb://***@a:1/x"),
        ("redis://h:1/0?password=p&db=1&ssl_keyfile=k", "redis://h:1/0?password=***&db=1&ssl_keyfile=***"),
        ("u:p@host", "***@host"),
        ("http://[h", "http://[h"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_credentials(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_a_record_round_trips(tmp_path: Path) -> None:
    record = Record(tmp_path)
    running = Entry("redis://x", (1, 2), Born(3, "b:4"), "/home", Born(5, "b:6"))
    ended = Entry("mongodb://x", (7,), None, "/data", None)
    record.write("broker", running)
    record.write("mongo", ended)
    assert record.read() == {"mongo": ended, "broker": running}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mongo": {}}', '{"mongo": {"ports": 1}}', json.dumps({"x": 1})])
def test_an_invalid_record_file_counts_as_missing(tmp_path: Path, text: str) -> None:
    (tmp_path / "services.json").write_text(text)
    assert Record(tmp_path).read() == {}


def test_a_back_off_doubles_up_to_its_limit() -> None:
    delays = [Backoff().delay(deaths).total_seconds() for deaths in (1, 2, 3, 4, 8, 9, 1000)]
    assert delays == [0.25, 0.5, 1.0, 2.0, 30.0, 30.0, 30.0]
