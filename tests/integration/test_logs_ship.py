"""Shipping logs into a real Elasticsearch: at least once, never doubled, nobody waits for it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
from elasticsearch import Elasticsearch

from engine.clock import Instant, format_instant, parse_instant
from engine.errors import OperatorError, ServiceUnreachable
from engine.stores.logs import LogIndex, open_client
from engine.telemetry.events import listening
from engine.telemetry.files import LogFile
from engine.telemetry.ship import Shipper

NOW = parse_instant("2026-11-23T08:00:00Z")

SHIP = """
import sys
from pathlib import Path
from engine.clock import SystemClock
from engine.stores.logs import LogIndex, open_client
from engine.telemetry import ship
ship.BATCH_BYTES = 20_000
shipper = ship.Shipper(Path(sys.argv[1]), LogIndex(open_client(sys.argv[2]), SystemClock(), stream=sys.argv[3]))
print("ready", flush=True)
shipper.drain()
"""


class Hands:
    """A clock that a test moves."""

    def __init__(self, now: Instant = NOW) -> None:
        self.now, self.seconds = now, 0.0

    def campaign_now(self) -> Instant:
        return self.now

    def system_now(self) -> Instant:
        return self.now

    def monotonic(self) -> float:
        return self.seconds


class Memory:
    """A sink that goes away when a test says so. (What Elasticsearch does is tested with Elasticsearch below.)"""

    def __init__(self) -> None:
        self.taken: dict[str, bytes] = {}
        self.away = False
        self.asked = threading.Event()

    def ensure(self) -> None:
        self._reach()

    def create(self, lines: Sequence[tuple[str, bytes]]) -> Mapping[str, str]:
        self._reach()
        refused = {name: "mapping" for name, raw in lines if b"poison" in raw}
        self.taken |= {name: raw for name, raw in lines if name not in refused}
        return refused

    def tidy(self) -> None:
        self._reach()

    def _reach(self) -> None:
        self.asked.set()
        if self.away:
            raise ServiceUnreachable("away")


def line(number: int, **fields: object) -> bytes:
    return orjson.dumps({"@timestamp": format_instant(NOW + number), "message": f"line {number}", **fields})


def written(folder: Path, count: int, process: str = "fast", **limits: int) -> None:
    file = LogFile(folder, process, **limits)  # type: ignore[arg-type]
    for number in range(count):
        file.write(line(number, process={"name": process}))
    file.close()


def test_every_line_of_every_file_is_shipped_once(tmp_path: Path) -> None:
    written(tmp_path, 500, max_bytes=5_000, keep=100)
    written(tmp_path, 30, "slow")
    sink = Memory()
    shipper = Shipper(tmp_path, sink)
    assert shipper.drain() == 530
    assert shipper.drain() == 0
    assert len(sink.taken) == 530
    shipper.close()
    again = Shipper(tmp_path, sink)
    assert again.drain() == 0
    again.close()


def test_without_its_state_a_shipper_repeats_the_same_ids(tmp_path: Path) -> None:
    written(tmp_path, 50)
    sink = Memory()
    for _ in range(2):
        shipper = Shipper(tmp_path, sink)
        assert shipper.drain() == 50
        shipper.close()
        (tmp_path / "ship.json").write_text("torn {")
    assert len(sink.taken) == 50


def test_a_line_that_is_still_being_written_waits_for_its_end(tmp_path: Path) -> None:
    sink = Memory()
    path = tmp_path / "fast-1-0123abcd.0001.ndjson"
    whole = line(1)
    path.write_bytes(whole + b"\n" + whole[:20])
    shipper = Shipper(tmp_path, sink)
    assert shipper.drain() == 1
    with path.open("ab") as file:
        file.write(whole[20:] + b"\n")
    assert shipper.drain() == 1
    shipper.close()
    assert list(sink.taken.values()) == [whole, whole]


def test_lines_that_can_never_be_taken_are_put_aside_and_reported(tmp_path: Path) -> None:
    sink = Memory()
    path = tmp_path / "fast-1-0123abcd.0001.ndjson"
    path.write_bytes(b"\n".join([line(1), b"no json", line(2, x="poison"), line(3), b""]))
    shipper = Shipper(tmp_path, sink)
    with listening() as heard:
        assert shipper.drain() == 2
        assert heard.of("ship.rejected")[0].fields["lines"] == 2
    shipper.close()
    aside = [orjson.loads(raw) for raw in (tmp_path / "ship-refused.jsonl").read_bytes().splitlines()]
    assert [one["reason"] for one in aside] == ["mapping", "not a JSON line"]


def test_while_the_log_search_is_away_lines_wait_and_are_shipped_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.telemetry.ship._FIRST_PAUSE", 0.01)
    written(tmp_path, 10)
    sink = Memory()
    sink.away = True
    shipper, stop = Shipper(tmp_path, sink), threading.Event()
    with listening() as heard:
        thread = threading.Thread(target=shipper.run, args=(stop,))
        thread.start()
        assert heard.wait("ship.away").fields["waiting"] == shipper.waiting() > 0
        sink.away = False
        heard.wait("ship.back")
        written(tmp_path, 5, "slow")
        stop.set()
        thread.join(5)
    assert not thread.is_alive()
    shipper.close()
    assert len(sink.taken) == 15


def test_one_folder_has_one_shipper(tmp_path: Path) -> None:
    first = Shipper(tmp_path, Memory())
    with pytest.raises(OperatorError, match="another process"):
        Shipper(tmp_path, Memory())
    first.close()
    Shipper(tmp_path, Memory()).close()


def test_a_log_search_that_does_not_answer_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        index = LogIndex(open_client(f"http://127.0.0.1:{taken.getsockname()[1]}"), Hands())
        with pytest.raises(ServiceUnreachable):
            index.ensure()
        with pytest.raises(ServiceUnreachable):
            index.search({"match_all": {}}, 1)


@pytest.mark.elastic
def test_a_line_is_created_once_and_found_by_its_fields(elastic: Elasticsearch, index_prefix: str) -> None:
    index = LogIndex(elastic, Hands(), stream=f"{index_prefix}logs")
    assert index.search({"match_all": {}}, 10) is None
    index.ensure()
    index.ensure()
    raw = line(1, labels={"user": "hh-1", "brand_new": "x"}, tidegate={"users": 3, "cost": 1.5, "as_of": "2017-01-01"})
    assert index.create([("a", raw), ("b", line(2))]) == {}
    assert index.create([("a", raw), ("c", line(3))]) == {}
    found = index.search({"match_all": {}}, 10)
    assert found is not None
    assert [one["message"] for one in found] == ["line 1", "line 2", "line 3"]
    assert index.search({"term": {"labels.brand_new": "x"}}, 10) == [orjson.loads(raw)]


@pytest.mark.elastic
def test_a_line_that_contradicts_the_mapping_is_refused_alone(elastic: Elasticsearch, index_prefix: str) -> None:
    index = LogIndex(elastic, Hands(), stream=f"{index_prefix}logs")
    index.ensure()
    refused = index.create([("a", line(1)), ("b", line(2, event={"duration": "long"})), ("c", line(3))])
    assert refused == {"b": "document_parsing_exception"}


@pytest.mark.elastic
def test_old_lines_are_forgotten_by_whole_indices(elastic: Elasticsearch, index_prefix: str) -> None:
    stream = f"{index_prefix}logs"
    clock = Hands()
    index = LogIndex(elastic, clock, stream=stream, keep=timedelta(days=2), roll_after=timedelta(days=1))
    index.ensure()
    index.create([("old", line(1))])
    (name,) = _backing(elastic, stream)
    settings = elastic.indices.get_settings(index=name)
    born = int(settings[name]["settings"]["index"]["creation_date"])
    for day, expected in ((0.5, 1), (1.5, 2), (1.6, 2), (3.9, 2)):
        clock.now, clock.seconds = born + int(day * 86_400_000), day * 86_400
        index.tidy()
        assert len(_backing(elastic, stream)) >= expected
    assert name not in _backing(elastic, stream), "its successor is older than the retention"
    assert index.search({"match_all": {}}, 10) == []


def _backing(elastic: Elasticsearch, stream: str) -> list[str]:
    return sorted(elastic.indices.get(index=f".ds-{stream}-*", expand_wildcards="all"))


@pytest.mark.elastic
def test_a_shipper_killed_again_and_again_doubles_and_loses_nothing(
    tmp_path: Path, elastic: Elasticsearch, services: object, index_prefix: str
) -> None:
    written(tmp_path, 3_000, max_bytes=50_000, keep=1_000)
    stream, url = f"{index_prefix}logs", services.elastic_url  # type: ignore[attr-defined]
    command = [sys.executable, "-c", SHIP, str(tmp_path), url, stream]
    positions: list[bytes] = [b""]
    for _ in range(4):
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        while child.poll() is None and _state(tmp_path) == positions[-1]:
            os.sched_yield()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        positions.append(_state(tmp_path))
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    elastic.indices.refresh(index=stream)
    assert elastic.count(index=stream)["count"] == 3_000
    assert len(set(positions)) >= 3, "it was killed on its way"


def _state(folder: Path) -> bytes:
    try:
        return (folder / "ship.json").read_bytes()
    except FileNotFoundError:
        return b""
