"""Log lines: their form, their files, and the data that they never contain."""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
import structlog

from engine.clock import Instant, parse_instant
from engine.domain.keys import delivery_key, enrolment_id, layout_hash, user_key, user_suffix
from engine.errors import OperatorError, ServiceUnreachable
from engine.telemetry import logging as telemetry
from engine.telemetry.events import emit, trace_id
from engine.telemetry.log_files import LogFile, log_files
from engine.telemetry.redaction import Redactor, pseudonym_key

NOW = parse_instant("2026-11-23T08:00:00.123Z")
AS_OF = parse_instant("2017-01-01T23:59:59.999Z")


class Still:
    def campaign_now(self) -> Instant:
        return AS_OF

    def system_now(self) -> Instant:
        return NOW

    def monotonic(self) -> float:
        return 0.0


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for path in log_files(folder) for line in path.read_text().splitlines()]


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[telemetry.Logs]:
    options = telemetry.LogOptions("fast", tmp_path, console=False, secrets=("hunter2-hunter2",))
    made = telemetry.configure(options, clock=Still(), campaign_time=lambda: AS_OF)
    yield made
    made.close()
    telemetry.clear()


def test_a_batch_is_one_line_in_ecs_fields(logs: telemetry.Logs, tmp_path: Path) -> None:
    telemetry.bind(run="r1", slice="s1")
    emit("batch.decided", workspace="grocer", campaign="lapsed", as_of=AS_OF, users=1000, entered=7,
         first="00000000", until="0fffffff", duration=timedelta(milliseconds=12.5))  # fmt: skip
    telemetry.clear()
    (line,) = lines(tmp_path)
    assert line["@timestamp"] == "2026-11-23T08:00:00.123Z"
    assert line["log.level"] == "info"
    assert line["event"] == {
        "action": "batch.decided", "dataset": "tidegate", "duration": 12_500_000, "outcome": "success", "sequence": 1,
    }  # fmt: skip
    assert line["labels"] == {"run": "r1", "slice": "s1", "workspace": "grocer", "campaign": "lapsed"}
    assert line["trace"] == {"id": trace_id("lapsed", AS_OF)}
    assert line["tidegate"] == {
        "as_of": "2017-01-01T23:59:59.999Z", "users": 1000, "entered": 7, "first": "00000000", "until": "0fffffff",
        "campaign_time": "2017-01-01T23:59:59.999Z",
    }  # fmt: skip
    assert isinstance(line["process"], dict)
    assert line["process"]["pid"] == os.getpid()


def test_a_delivery_has_the_trace_of_its_choosing_pass(logs: telemetry.Logs, tmp_path: Path) -> None:
    key = delivery_key(enrolment_id("grocer", "lapsed", user_suffix("hh-1"), 1), "first")
    emit("delivery.sent", campaign="lapsed", user="hh-1", key=key, chosen_at=AS_OF, as_of=AS_OF + 5)
    (line,) = lines(tmp_path)
    assert line["trace"] == {"id": trace_id("lapsed", AS_OF)}
    assert line["labels"] == {"campaign": "lapsed", "user": "hh-1", "key": key}


@pytest.mark.parametrize("user", ["zoe@example.org", user_key("grocer", "zoe@example.org")])
def test_a_user_id_that_looks_like_an_address_is_pseudonymised(logs: telemetry.Logs, tmp_path: Path, user: str) -> None:
    suffix = user_suffix("zoe@example.org")
    key = delivery_key(enrolment_id("grocer", "lapsed", suffix, 1), "first")
    emit("delivery.sent", campaign="lapsed", user=user, key=key)
    text = log_files(tmp_path)[0].read_text()
    assert "zoe" not in text
    assert "example" not in text
    assert layout_hash("zoe@example.org") not in text
    (line,) = lines(tmp_path)
    name = logs.redactor.user("zoe@example.org")
    assert name.startswith("u:")
    assert line["labels"] == {"campaign": "lapsed", "user": name, "key": f"grocer/lapsed/~/{name}/0001/first"}


def test_a_user_id_with_slashes_is_not_read_as_a_key(logs: telemetry.Logs, tmp_path: Path) -> None:
    emit("delivery.sent", user="a/0a1b2c3d/b")
    emit("delivery.sent", user=user_key("grocer", "a/0a1b2c3d/b"))
    assert [line["labels"] for line in lines(tmp_path)] == [{"user": "a/0a1b2c3d/b"}] * 2


def test_processes_with_one_folder_use_the_same_pseudonyms(tmp_path: Path) -> None:
    made: list[bytes] = []
    threads = [threading.Thread(target=lambda: made.append(pseudonym_key(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1
    assert (tmp_path / "pseudonyms.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "no mailbox for zoe@example.org here",
        "<zoe@example.org>",
        "to=zoe+tag@example.org, next",
        "https://x.example/?to=zoe%40example.org",
        '"zoe quoted"@example.org',
        "mongodb://zoe:hunter2@db.example/x",
        "ZOE@EXAMPLE.ORG",
        "zoé@exämple.org",
        "line\nzoe@example.org\nline",
    ],
)
def test_an_address_in_a_text_is_redacted(text: str) -> None:
    masked = Redactor(b"k" * 16).text(text)
    assert "zo" not in masked.lower()
    assert "hunter2" not in masked


def test_other_texts_are_unchanged() -> None:
    for text in ("@timestamp", "a @ b", "slice grocer/1/0000-0fff", "took 3 ms @", "@decorated"):
        assert Redactor(b"k" * 16).text(text) == text


def test_a_known_secret_is_redacted_in_each_of_its_forms() -> None:
    redactor = Redactor(b"k" * 16, ('p"ss/wörd-1',))
    value = 'p"ss/wörd-1'
    for form in (value, quote(value, safe=""), json.dumps(value, ensure_ascii=False)[1:-1]):
        assert redactor.text(f"a {form} b") == "a [secret] b"
    plain = base64.b64encode(b"\0user\0" + value.encode()).decode()
    assert "[secret]" in redactor.text(f"AUTH PLAIN {plain}")
    assert value not in repr(redactor)


def test_options_show_no_secret() -> None:
    shown = repr(telemetry.LogOptions("x", secrets=("hunter2-hunter2",), pseudonyms=b"topsecret"))
    assert "hunter2" not in shown
    assert "topsecret" not in shown


def _fail(value: str, address: str) -> None:
    try:
        _ = {}[value]
    except KeyError as cause:
        raise ValueError(f"bad document {{'token': {value!r}}} of {address}") from cause


def test_an_exception_keeps_its_place_and_loses_quoted_values(logs: telemetry.Logs, tmp_path: Path) -> None:
    value, address = "canary-value", "zoe@example.org"
    try:
        _fail(value, address)
    except ValueError as error:
        emit("engine.failed", slice="s", error=error)
    (line,) = lines(tmp_path)
    failure = line["error"]
    assert isinstance(failure, dict)
    assert (failure["type"], failure["message"]) == ("builtins.ValueError", "bad document {…")
    assert "KeyError: '…" in failure["stack_trace"]
    assert "in _fail" in failure["stack_trace"]
    assert "canary-value" not in json.dumps(line)
    assert "zoe@" not in json.dumps(line)


def test_our_own_errors_keep_their_text(logs: telemetry.Logs, tmp_path: Path) -> None:
    emit("engine.failed", error=OperatorError("the broker 'b' does not answer"))
    (line,) = lines(tmp_path)
    assert line["error"]["message"] == "the broker 'b' does not answer"  # type: ignore[index]


def test_an_outage_raised_by_a_library_is_no_unhandled_error(logs: telemetry.Logs, tmp_path: Path) -> None:
    for error in (ServiceUnreachable("Elasticsearch does not answer"), KeyError("k")):
        logging.getLogger("dramatiq.worker").error("Failed to process m() with unhandled exception", exc_info=error)
    received = [(line["log.level"], line["message"]) for line in lines(tmp_path)]
    assert received == [
        ("warning", "library.logged: Failed to process m() now"),
        ("error", "library.logged: Failed to process m() with unhandled exception"),
    ]


def test_library_and_structlog_lines_are_processed_alike(logs: telemetry.Logs, tmp_path: Path) -> None:
    logging.getLogger("dramatiq.worker").warning("lost %s with %s", "zoe@example.org", "hunter2-hunter2")
    logging.getLogger("pymongo.command").info("a whole document")
    structlog.get_logger().info("thing.done", run="r9", token="zoe@example.org")
    first, second = lines(tmp_path)
    assert first["message"] == "library.logged: lost [address] with [secret]"
    assert first["log.logger"] == "dramatiq.worker"
    assert second["labels"] == {"run": "r9"}
    assert second["tidegate"]["token"] == "[address]"  # type: ignore[index]


def test_lines_below_the_level_are_left_out(tmp_path: Path) -> None:
    logs = telemetry.configure(telemetry.LogOptions("x", tmp_path, level="warning", console=False), clock=Still())
    emit("batch.decided", users=1)
    emit("service.lost", service="mongo")
    logs.close()
    assert [line["message"] for line in lines(tmp_path)] == ["service.lost"]


def test_lines_also_go_to_stdout_if_configured(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    logs = telemetry.configure(telemetry.LogOptions("x", None, stdout=True), clock=Still())
    emit("clock.set", campaign_time=AS_OF)
    logs.close()
    out, err = capfdbinary.readouterr()
    assert json.loads(out)["tidegate"] == {"campaign_time": "2017-01-01T23:59:59.999Z"}
    assert not err


def test_the_console_format_is_one_readable_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs = telemetry.configure(telemetry.LogOptions("x", console=True), clock=Still())
    emit("batch.decided", users=12, campaign="lapsed", duration=timedelta(milliseconds=2))
    logs.close()
    shown = capsys.readouterr().err
    assert "batch.decided" in shown
    assert "users=12" in shown
    assert "took=2.0ms" in shown


def test_a_file_is_cut_by_size_and_finished_ones_are_pruned(tmp_path: Path) -> None:
    file = LogFile(tmp_path, "fast", max_bytes=100, keep=2)
    for number in range(20):
        file.write(b"x" * 40 + str(number).encode())
    names = [path.name for path in log_files(tmp_path)]
    file.close()
    assert len(names) == 3
    assert all(path.stat().st_size <= 100 for path in log_files(tmp_path))
    assert sorted(names)[-1].endswith(".0010.ndjson")


def test_files_of_other_processes_are_not_pruned(tmp_path: Path) -> None:
    living = tmp_path / f"fast-{os.getpid()}-0123abcd.0001.ndjson"
    other = tmp_path / "slow-1-0123abcd.0001.ndjson"
    dead = tmp_path / "fast-999999999-0123abcd.0001.ndjson"
    for path in (living, other, dead):
        path.write_text("{}\n")
    file = LogFile(tmp_path, "fast", keep=0)
    file.write(b"{}")
    file.close()
    assert living.exists()
    assert other.exists()
    assert not dead.exists()


def test_a_forked_child_writes_a_file_of_its_own(tmp_path: Path) -> None:
    code = (
        "import os,sys; from pathlib import Path; from engine.telemetry.log_files import LogFile\n"
        "file = LogFile(Path(sys.argv[1]), 'fast'); file.write(b'parent')\n"
        "pid = os.fork()\n"
        "file.write(b'child' if pid == 0 else b'again')\n"
        "os._exit(0) if pid == 0 else os.waitpid(pid, 0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=30)
    assert sorted(path.read_text() for path in log_files(tmp_path)) == ["child\n", "parent\nagain\n"]


def test_a_killed_writer_leaves_at_most_one_torn_line(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from engine.telemetry.log_files import LogFile\n"
        "import threading\n"
        "file = LogFile(Path(sys.argv[1]), 'fast', max_bytes=20000, keep=1000)\n"
        "def go():\n"
        "    while True: file.write(b'{\"x\": \"' + b'y' * 300 + b'\"}')\n"
        "threads = [threading.Thread(target=go) for _ in range(4)]\n"
        "[t.start() for t in threads]; print('on', flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    while len(log_files(tmp_path)) < 5:
        os.sched_yield()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    files = log_files(tmp_path)
    torn = 0
    for path in files:
        for line in path.read_bytes().split(b"\n")[:-1]:
            json.loads(line)
        torn += not path.read_bytes().endswith(b"\n")
    assert torn <= 1


def test_a_failing_disk_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    file = LogFile(blocked, "fast")
    file.write(b"{}")
    file.write(b"{}")
    assert capsys.readouterr().err.count("lines are lost") == 1
