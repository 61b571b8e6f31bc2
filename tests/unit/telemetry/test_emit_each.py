"""Emit many occurrences together: every line and every listener gets what `emit` gives for each alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.clock import Instant, parse_instant
from engine.errors import ProgrammerError
from engine.telemetry import logging as telemetry
from engine.telemetry.alike import Alike
from engine.telemetry.ecs import ecs_line, ecs_lines
from engine.telemetry.events import emit, emit_each, listening
from engine.telemetry.log_files import log_files
from engine.telemetry.redaction import Redactor

NOW = parse_instant("2026-11-23T08:00:00.123Z")
SECRET = "hunter2-hunter2"
COMMON: dict[str, object] = {
    "workspace": "grocer",
    "campaign": "lapsed",
    "campaign_uid": "0a1b2c3d",
    "slice": "grocer/0a1b2c3d/launch/1/0000",
    "channel": "email",
    "reason": None,
    "chosen_at": NOW - 5,
    "as_of": NOW,
    "attempts": 1,
}
ROWS = [
    {"user": user, "entry": "1", "key": f"grocer/0a1b2c3d/00000000/{user}/0001/hello"}
    for user in ("hh-1", "ann@example.org", f"x-{SECRET}", "a/b", *(f"u-{number}" for number in range(250)))
]


class Still:
    """A clock that does not advance."""

    def campaign_now(self) -> Instant:
        """Return campaign time."""
        return NOW

    def system_now(self) -> Instant:
        """System time."""
        return NOW

    def monotonic(self) -> float:
        """Seconds."""
        return 0.0


def written(folder: Path, tell: Callable[[], None], level: str = "info") -> list[dict[str, Any]]:
    """Return the lines that `tell` writes to a folder."""
    options = telemetry.LogOptions(
        "deliver", folder, level=level, console=False, secrets=(SECRET,), pseudonyms=b"k" * 32
    )
    logs = telemetry.configure(options, clock=Still())
    telemetry.bind(lane="deliver")
    try:
        tell()
    finally:
        logs.close()
        telemetry.clear()
    return [json.loads(line) for path in log_files(folder) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("event", ["delivery.sent", "delivery.failed", "delivery.unknown"])
def test_emit_many_writes_the_lines_of_single_emits(event: str, tmp_path: Path) -> None:
    together = written(tmp_path / "together", lambda: emit_each(event, COMMON, ROWS))
    singly = written(tmp_path / "singly", lambda: [emit(event, **COMMON, **row) for row in ROWS] and None)
    assert together == singly
    assert len(together) == len(ROWS)
    assert [line["event"]["sequence"] for line in together] == list(range(1, len(ROWS) + 1))


def test_brief_output_prints_the_first_line_with_the_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = telemetry.LogOptions("deliver", tmp_path, stdout=True, brief=True, console=False, pseudonyms=b"k" * 32)
    logs = telemetry.configure(options, clock=Still())
    emit_each("delivery.sent", COMMON, ROWS)
    emit("worker.started", threads=1, lanes="deliver")
    logs.close()
    written = [json.loads(line) for path in log_files(tmp_path) for line in path.read_text().splitlines()]
    assert len(written) == len(ROWS) + 1
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == [{**written[0], "alike": len(ROWS)}, written[-1]]


PLAIN = st.text("abz09-_.% ü~$", min_size=1, max_size=9)
ANY = (
    PLAIN | st.text(st.characters(exclude_categories=("Cs",)), max_size=9) | st.sampled_from([SECRET, "a@b.c", "w%40x"])
)
ROW = st.fixed_dictionaries({"key": ANY, "user": ANY, "entry": ANY})


@settings(deadline=None)
@given(st.lists(ROW, min_size=1, max_size=5), st.dictionaries(st.sampled_from(["campaign", "slice", "run"]), ANY))
def test_the_fast_encoder_writes_the_bytes_of_the_general_one(
    rows: list[dict[str, str]], common: dict[str, object]
) -> None:
    redactor = Redactor(b"k" * 32, (SECRET,))
    rows = [{name: row[name] for name in rows[0]} for row in rows]  # labels follow the order of their rows
    made = ecs_line("delivery.sent", "info", common, at=NOW, redactor=redactor, process="deliver")
    alike = Alike.of(made, list(rows[0]), redactor)
    assert alike is not None
    quick = alike.lines(rows, range(7, 7 + len(rows)))
    general = b"\n".join(map(orjson.dumps, ecs_lines(made, rows, redactor, count(7))))
    assert quick in (None, general)


@settings(deadline=None)
@given(st.lists(st.fixed_dictionaries({"user": PLAIN, "key": PLAIN}), min_size=1, max_size=5))
def test_plain_values_use_the_fast_encoder(rows: list[dict[str, str]]) -> None:
    redactor = Redactor(b"k" * 32, (SECRET,))
    made = ecs_line("delivery.sent", "info", {"campaign": "100%"}, at=NOW, redactor=redactor, process="deliver")
    alike = Alike.of(made, ["user", "key"], redactor)
    assert alike is not None
    assert alike.lines(rows, range(len(rows))) is not None


def test_values_that_look_like_the_pattern_use_the_general_encoder() -> None:
    made = ecs_line("delivery.sent", "info", {"run": "~tidegate~user~"}, at=NOW, redactor=Redactor(b"k"), process="x")
    assert Alike.of(made, ["user"], Redactor(b"k")) is None


@pytest.mark.parametrize("user", ["hh-1", "ann@example.org"], ids=["the quick way", "the general way"])
def test_events_emitted_at_once_are_numbered_consecutively(user: str, tmp_path: Path) -> None:
    before = sys.getswitchinterval()
    rows = [{"user": user}] * 60

    def tell() -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: emit_each("delivery.sent", {"message": str(number)}, rows), range(40)))

    sys.setswitchinterval(1e-6)
    try:
        lines = written(tmp_path, tell)
    finally:
        sys.setswitchinterval(before)
    for number in range(40):
        mine = [line["event"]["sequence"] for line in lines if line["labels"]["message"] == str(number)]
        assert mine == list(range(mine[0], mine[0] + 60))


def test_no_line_contains_an_address(tmp_path: Path) -> None:
    lines = json.dumps(written(tmp_path, lambda: emit_each("delivery.sent", COMMON, ROWS)))
    assert "ann@" not in lines
    assert "ann%40" not in lines


def test_events_below_the_level_write_no_line(tmp_path: Path) -> None:
    assert written(tmp_path, lambda: emit_each("delivery.sent", COMMON, ROWS), level="warning") == []


def test_a_listener_gets_each_event(tmp_path: Path) -> None:
    with listening() as events:
        emit_each("delivery.sent", COMMON, ROWS)
    assert len(events.of("delivery.sent", workspace="grocer")) == len(ROWS)
    assert events.of("delivery.sent", user="hh-1")[0].fields == {
        **{name: value for name, value in COMMON.items() if value is not None},
        **ROWS[0],
    }


def test_an_empty_emit_writes_nothing() -> None:
    with listening() as events:
        emit_each("delivery.sent", COMMON, [])
    assert events.of("delivery.sent") == []


@pytest.mark.parametrize("rows", [[{"user": "a"}, {"entry": "1"}], [{"attempts": 1}], [{"as_of": 5}]])
def test_rows_of_different_labels_are_refused(rows: list[dict[str, object]]) -> None:
    with pytest.raises(ProgrammerError, match="rows of different labels"):
        emit_each("delivery.sent", {}, rows)


@pytest.mark.parametrize(("event", "row"), [("delivery.gone", {"user": "a"}), ("delivery.sent", {"fleet": "a"})])
def test_fields_outside_the_contract_are_refused(event: str, row: dict[str, object]) -> None:
    with pytest.raises(ProgrammerError, match=r"not in the contract|has no field"):
        emit_each(event, {}, [row])
