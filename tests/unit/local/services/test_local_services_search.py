"""Elasticsearch is optional: starting the local services returns its address at once, without waiting for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from engine.local.processes.process_groups import Command
from engine.local.services import local_services as module
from engine.local.services.local_services import LocalServices
from engine.local.services.program import CannotStart, Say, ServiceName


@dataclass
class Search:
    """A program that starts when the test allows it and serves when the test says so."""

    fetched: threading.Event = field(default_factory=threading.Event)
    serves: threading.Event = field(default_factory=threading.Event)
    missing: str = ""
    name: ServiceName = "elastic"
    port_count: int = 2
    patience: timedelta = timedelta(seconds=60)

    def command(self, folder: Path, ports: Sequence[int], say: Say) -> Command:
        self.fetched.wait()
        if self.missing:
            raise CannotStart(self.missing, remedy="install it")
        return Command(("sleep", "1000"), {})

    def url(self, ports: Sequence[int]) -> str:
        return f"http://127.0.0.1:{ports[0]}"

    def ready(self, ports: Sequence[int], pid: int) -> bool:
        return self.serves.is_set()

    def home(self, folder: Path) -> Path:
        return folder


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def search() -> Search:
    return Search()


@pytest.fixture
def local(tmp_path: Path, said: list[str], search: Search) -> Iterator[LocalServices]:
    made = LocalServices(tmp_path, say=said.append)
    made.programs["elastic"] = search
    yield made
    search.fetched.set()
    made.stop(discard=True)


def test_elasticsearch_starts_after_the_others_with_its_address_known_before(
    local: LocalServices, search: Search, said: list[str]
) -> None:
    search.fetched.set()
    url = local.start(["elastic"], wait_for_search=False).elastic_url
    assert url is not None
    assert said == ["elastic starts meanwhile; the engine uses it once it serves"]
    assert {status.state for status in local.status()} == {"absent"}, "nothing takes processor time yet"
    local.start_search()
    search.serves.set()
    assert local.url("elastic") == url
    assert {status.name: status.state for status in local.status()}["elastic"] == "running"
    assert "elastic serves" in said[-1]


def test_a_missing_requirement_of_elasticsearch_is_reported_at_once(
    local: LocalServices, search: Search, said: list[str]
) -> None:
    search.missing = "elasticsearch: no Java"
    search.fetched.set()
    assert local.start(["elastic"], wait_for_search=False).elastic_url is None
    (note,) = local.notes
    assert said == [note]
    assert "no Java; running without Elasticsearch" in note
    assert "install it" in note


def test_a_long_download_blocks_no_other_service_and_its_failure_is_reported(
    local: LocalServices, search: Search, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DECIDED", 0.01)
    search.missing = "elasticsearch: the network is away"
    assert local.start(["elastic"], wait_for_search=False).elastic_url is not None
    assert said == ["elastic is fetched or unpacked meanwhile; the engine uses it once it serves"]
    search.fetched.set()
    with pytest.raises(CannotStart):
        local.url("elastic")
    assert local.elastic_url() is None
    assert "the network is away; running without Elasticsearch" in said[1]


def test_a_stop_during_the_download_is_no_failure(local: LocalServices, search: Search, said: list[str]) -> None:
    search.fetched.set()
    assert local.start(["elastic"], wait_for_search=False).elastic_url is not None
    local.stop()
    assert local.notes == []
    assert len(said) == 1


def test_a_wait_for_elasticsearch_returns_once_it_serves(local: LocalServices, search: Search) -> None:
    search.fetched.set()
    search.serves.set()
    assert local.start(["elastic"]).elastic_url == local.url("elastic")
