"""Log lines reach a real Elasticsearch at least once, never doubled, and no process waits for it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import timedelta
from itertools import count, islice
from pathlib import Path

import orjson
import pytest
from elasticsearch import Elasticsearch

from engine.clock import Instant, format_instant, parse_instant
from engine.domain.log_documents import Document, Taken, unbundled
from engine.errors import OperatorError, ServiceUnreachable
from engine.stores.search.log_index import LogIndex, open_client
from engine.telemetry.events import emit_each, listening
from engine.telemetry.log_files import LogFile
from engine.telemetry.log_query import parse_query
from engine.telemetry.log_shipper import Shipper
from engine.telemetry.logging import LogOptions, configure
from engine.telemetry.redaction import Redactor

NOW = parse_instant("2026-11-23T08:00:00Z")

SHIP = """
import sys
from pathlib import Path
from engine.clock import SystemClock
from engine.stores.search.log_index import LogIndex, open_client
from engine.telemetry import log_shipper as ship
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
    """A log search that a test can make unreachable. (Other tests below use Elasticsearch.)"""

    def __init__(self) -> None:
        self.taken: dict[str, bytes] = {}
        self.away = False
        self.asked = threading.Event()

    def ensure(self) -> None:
        self._reach()

    def create(self, documents: Sequence[Document]) -> Taken:
        self._reach()
        refused = {document.id: "mapping" for document in documents if b"poison" in document.raw}
        self.taken |= {document.id: document.raw for document in documents if document.id not in refused}
        return Taken(refused)

    def tidy(self) -> None:
        self._reach()

    def _reach(self) -> None:
        self.asked.set()
        if self.away:
            raise ServiceUnreachable("away")


def line(number: int, **fields: object) -> bytes:
    return orjson.dumps({"@timestamp": format_instant(NOW + number), "message": f"line {number}", **fields})


def deliveries(folder: Path, windows: Sequence[int], process: str = "deliver") -> None:
    """Return the lines of deliveries that settled in windows of these sizes."""
    logs = configure(LogOptions(process, folder, console=False), clock=Hands())
    common: dict[str, object] = {"workspace": "grocer", "campaign": "spring", "campaign_uid": "spring-1"}
    users = count(1)
    try:
        for window, size in enumerate(windows):
            some = [f"hh-{number}" for number in islice(users, size)]
            rows = [{"user": user, "entry": "1", "key": f"grocer/spring-1/0/{user}/0001/hello"} for user in some]
            emit_each("delivery.sent", {**common, "chosen_at": NOW + window, "attempts": 1}, rows)
    finally:
        logs.close()


def lines_of(folder: Path) -> list[object]:
    return [orjson.loads(raw) for path in sorted(folder.glob("*.ndjson")) for raw in path.read_bytes().splitlines()]


def taken_apart(sink: Memory) -> list[object]:
    return [logged for raw in sink.taken.values() for logged in reversed(list(unbundled(orjson.loads(raw))))]


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


def test_windows_of_deliveries_ship_as_few_documents_with_the_lines_of_the_file(tmp_path: Path) -> None:
    deliveries(tmp_path, [50, 50, 1, 30])
    sink = Memory()
    shipper = Shipper(tmp_path, sink)
    assert shipper.drain() == 131
    shipper.close()
    assert len(sink.taken) < 10
    assert taken_apart(sink) == lines_of(tmp_path)


def test_the_last_bundle_of_a_file_waits_until_the_file_has_not_grown(tmp_path: Path) -> None:
    deliveries(tmp_path, [50, 50])
    (path,) = tmp_path.glob("*.ndjson")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    sink, going = Memory(), threading.Event()
    path.write_bytes(b"".join(lines[:30]))
    shipper = Shipper(tmp_path, sink)
    assert shipper.drain(going) == 0
    path.write_bytes(b"".join(lines[:70]))
    assert shipper.drain(going) == 50, "its end is known"
    assert shipper.drain(going) == 20, "nothing has come for a while"
    path.write_bytes(whole)
    assert shipper.drain(going) == 0
    assert shipper.drain() == 30, "the last time it does not wait"
    shipper.close()
    assert taken_apart(sink) == lines_of(tmp_path)


@pytest.mark.parametrize("size", [10_000, 40_000, 200_000])
def test_bundles_do_not_depend_on_the_size_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    deliveries(tmp_path, [50, 200, 7])
    whole, sink = Memory(), Memory()
    shipper = Shipper(tmp_path, whole)
    shipper.drain()
    shipper.close()
    (tmp_path / "ship.json").unlink()
    monkeypatch.setattr("engine.telemetry.log_shipper.BATCH_BYTES", size)
    shipper = Shipper(tmp_path, sink)
    assert shipper.drain() == 257
    shipper.close()
    assert taken_apart(sink) == lines_of(tmp_path)
    if size == 200_000:
        assert sink.taken == whole.taken


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


def test_lines_that_elasticsearch_always_refuses_are_set_aside_and_reported(tmp_path: Path) -> None:
    sink = Memory()
    path = tmp_path / "fast-1-0123abcd.0001.ndjson"
    path.write_bytes(b"\n".join([line(1), b"no json", line(2, x="poison"), line(3), b""]))
    shipper = Shipper(tmp_path, sink)
    with listening() as events:
        assert shipper.drain() == 2
        assert events.of("ship.rejected")[0].fields["lines"] == 2
    shipper.close()
    aside = [orjson.loads(raw) for raw in (tmp_path / "ship-refused.jsonl").read_bytes().splitlines()]
    assert [logged["reason"] for logged in aside] == ["mapping", "not a JSON line"]


def test_lines_wait_while_the_log_search_is_unreachable_and_are_shipped_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.telemetry.log_shipper.FIRST_PAUSE", 0.01)
    written(tmp_path, 10)
    sink = Memory()
    sink.away = True
    shipper, stop = Shipper(tmp_path, sink), threading.Event()
    with listening() as events:
        thread = threading.Thread(target=shipper.run, args=(stop,))
        thread.start()
        assert events.wait("ship.away").fields["waiting"] == shipper.waiting() > 0
        sink.away = False
        events.wait("ship.back")
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
    assert index.create([Document("a", raw), Document("b", line(2))]) == Taken()
    assert index.create([Document("a", raw), Document("c", line(3))]) == Taken()
    match = index.search({"match_all": {}}, 10)
    assert match is not None
    assert [hit["message"] for hit in match] == ["line 1", "line 2", "line 3"]
    assert index.search({"term": {"labels.brand_new": "x"}}, 10) == [orjson.loads(raw)]


@pytest.mark.elastic
def test_a_line_inside_a_bundle_is_found_by_its_own_fields_only(
    tmp_path: Path, elastic: Elasticsearch, index_prefix: str
) -> None:
    deliveries(tmp_path, [50, 250])
    index = LogIndex(elastic, Hands(), stream=f"{index_prefix}logs")
    shipper = Shipper(tmp_path, index)
    assert shipper.drain() == 300
    shipper.close()

    def found(text: str, limit: int = 1_000) -> list[str]:
        query = parse_query(text, Redactor(b"k" * 32))
        lines = index.search(query.elastic(), limit, query.picks)
        assert lines is not None
        assert all(line in written_lines for line in lines)
        return [line["labels"]["user"] for line in lines]

    written_lines = lines_of(tmp_path)
    everybody = [f"hh-{number}" for number in range(1, 301)]
    assert found("campaign:spring event:delivery.sent process:deliver") == everybody
    assert found("delivery message:hello") == []
    assert found("delivery", 7) == everybody[-7:]
    assert found("user:hh-17") == ["hh-17"]
    assert found("key:grocer/spring-1/0/hh-29*") == ["hh-29", *(f"hh-{number}" for number in range(290, 300))]
    assert found("user:hh-17 key:grocer/spring-1/0/hh-18*") == [], "they are of two lines"
    assert found("entry:1 user:hh-3*", 5) == ["hh-36", "hh-37", "hh-38", "hh-39", "hh-300"]


@pytest.mark.elastic
def test_a_bundle_shipped_too_early_is_completed_after_a_kill(
    tmp_path: Path, elastic: Elasticsearch, index_prefix: str
) -> None:
    deliveries(tmp_path, [50])
    index = LogIndex(elastic, Hands(), stream=f"{index_prefix}logs")
    (path,) = tmp_path.glob("*.ndjson")
    lines = path.read_bytes().splitlines(keepends=True)
    for there in (1, 20, 50):
        path.write_bytes(b"".join(lines[:there]))
        shipper = Shipper(tmp_path, index)
        shipper.drain()
        shipper.close()
        (tmp_path / "ship.json").unlink()  # killed before it noted what was accepted
        assert index.search({"match_all": {}}, 100) == lines_of(tmp_path)


@pytest.mark.elastic
def test_a_line_that_contradicts_the_mapping_is_refused_alone(elastic: Elasticsearch, index_prefix: str) -> None:
    index = LogIndex(elastic, Hands(), stream=f"{index_prefix}logs")
    index.ensure()
    wrong = line(2, event={"duration": "long"})
    taken = index.create([Document("a", line(1)), Document("b", wrong), Document("c", line(3))])
    assert taken == Taken({"b": "document_parsing_exception"})


@pytest.mark.elastic
def test_old_lines_expire_by_whole_indices(elastic: Elasticsearch, index_prefix: str) -> None:
    stream = f"{index_prefix}logs"
    clock = Hands()
    index = LogIndex(elastic, clock, stream=stream, keep=timedelta(days=2), roll_after=timedelta(days=1))
    index.ensure()
    index.create([Document("old", line(1))])
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
def test_a_repeatedly_killed_shipper_neither_doubles_nor_loses_lines(
    tmp_path: Path, elastic: Elasticsearch, services: object, index_prefix: str
) -> None:
    written(tmp_path, 1_500, max_bytes=50_000, keep=1_000)
    deliveries(tmp_path, [50, 1, 249] * 5)
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
    match = LogIndex(elastic, Hands(), stream=stream).search({"match_all": {}}, 10_000)
    assert match is not None
    assert sorted(map(orjson.dumps, match)) == sorted(map(orjson.dumps, lines_of(tmp_path)))
    assert len(match) == 3_000
    assert len(set(positions)) >= 3, "it was killed on its way"


def _state(folder: Path) -> bytes:
    try:
        return (folder / "ship.json").read_bytes()
    except FileNotFoundError:
        return b""
