"""`tidegate import` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from engine.cli import importing
from engine.cli.import_layout import pairs
from engine.cli.importing import Lines, limit
from engine.errors import WrongCall
from engine.pipeline.importing.job import Limit
from engine.pipeline.importing.ports import Progress


def test_the_summary_is_one_document_whose_numbers_add_up(importer: Any, call: Any) -> None:
    path = importer.write("a.csv", "user_id,alter\nu1,7\nu2,x\nu1,7\nu1,8\n")
    result = call("users", str(path), "-w", "shop", "--map", "alter=age", "--json", "--max-rejects", "25%")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert summary["rows"] == 4
    assert [summary[name] for name in ("created", "updated", "unchanged", "repeated", "rejected")] == [1, 1, 1, 0, 1]
    assert summary["rejects_file"] == f"{path}.rejects.ndjson"


def test_too_many_rejected_rows_exit_1_after_all_others_are_imported(importer: Any, call: Any) -> None:
    path = importer.write("a.csv", "user_id,age\nu1,x\nu2,7\n")
    result = call("users", str(path), "-w", "shop", "--rejects", str(importer.folder / "r.csv"))
    assert result.exit_code == 1
    assert "2 rows: 1 created" in result.stdout
    assert "1 rows were rejected, more than --max-rejects allows" in result.stderr
    assert list(importer.stored_users()) == ["u2"]


def test_events_and_lists_are_imported(importer: Any, call: Any) -> None:
    events = importer.write("e.csv", "user_id,time,value\nu1,2026-01-01,2.50\n")
    result = call("events", str(events), "-w", "shop", "--default", "name=Order Completed", "--quiet")
    assert (result.exit_code, result.stdout) == (0, "")
    users = importer.write("l.csv", "user_id,x\nu1,1\n")
    result = call("lists", str(users), "-w", "shop", "--list", "vips", "--mode", "replace", "--ignore", "x", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["list"] == "vips"
    assert importer.stored_users()["u1"]["lists"] == ["vips"]
    assert importer.stored_users()["u1"]["g"]["orders_value"] == 250


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("users", "none.csv", "-w", "shop"), "no such file"),
        (("users", "none.csv", "-w", "none"), "no workspace"),
        (("users", "none.csv", "-w", "shop", "--map", "x"), "expected NAME=VALUE"),
        (("users", "none.csv", "-w", "shop", "--max-rejects", "101%"), "a share such as 1%"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(call: Any, words: Sequence[str], error: str) -> None:
    result = call(*words)
    assert isinstance(result.exception, WrongCall)
    assert result.exception.exit_code == 2
    assert error in str(result.exception)


def test_limits_and_pairs_are_read() -> None:
    assert limit("0").allows(0, 10)
    assert not limit("0").allows(1, 10)
    assert limit("12") == Limit(rows=12)
    assert limit("1.5%").allows(15, 1_000)
    assert not limit("1.5%").allows(16, 1_000)
    assert pairs("--map", ["a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}
    with pytest.raises(WrongCall, match="twice"):
        pairs("--map", ["a=b", "a=c"])


def test_without_a_terminal_progress_is_a_line_now_and_then(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(importing, "LINE_EVERY", 0.0)
    Lines("a.csv").show(Progress(500, 2, 0.25, 1000.0, 1.5))
    assert capsys.readouterr().err == "a.csv: 25%, 500 rows, 1000 rows/s, 2 rejected, about 2 s left\n"
    monkeypatch.setattr(importing, "LINE_EVERY", 3600.0)
    lines = Lines("a.csv")
    lines.show(Progress(500, 2, 0.25, 1000.0, None))
    assert capsys.readouterr().err == ""
