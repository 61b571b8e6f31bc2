"""Tables keep every word: a pipe gets the full width, a terminal gets cells that continue on the next line."""

from __future__ import annotations

import io
import os

import pytest

from engine.cli.tables import break_points, show, table, width_of

COLUMNS = ("query", "calls", "what")
ROWS = [("enrolments.enter_alike", "1,000", "a sentence that is longer than the others"), ("users.read", "2", "")]
WORDS = {word for row in (COLUMNS, *ROWS) for cell in row for word in cell.split()}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", ["", "20", "80"])
def test_in_a_pipe_each_row_is_one_line_despite_columns(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    stream = io.StringIO()
    show("a title", COLUMNS, ROWS, stream)
    assert stream.getvalue().splitlines() == [
        "a title",
        "query                   calls  what",
        "enrolments.enter_alike  1,000  a sentence that is longer than the others",
        "users.read              2",
    ]


@pytest.mark.parametrize("room", [1, 20, 40, 50, 60, 72, 73, 200])
def test_on_a_terminal_no_word_is_cut_and_lines_fit_if_their_words_do(room: int) -> None:
    lines = table(COLUMNS, ROWS, room)
    assert {word for line in lines for word in line.split()} == WORDS
    least = sum(len(word) for word in ("enrolments.enter_alike", "calls", "sentence")) + 4
    assert max(map(len, lines)) <= max(room, least)


SERVICES = ("service", "state", "address", "pid", "since", "restarts", "last exit")
SINCE = "2026-11-30T16:22:28+00:00"
RUNNING = (
    ("mongo", "running", "mongodb://127.0.0.1:46361/?replicaSet=tidegate", 12345, SINCE, 1, "by SIGKILL"),
    ("broker", "running", "redis://127.0.0.1:40001/0", 12346, SINCE, "", ""),
)
LAUNCHED = ("2026-11-30T16:22:28.123Z", "its file does not fit: conf/workspaces/example-of-a-long-name.yaml")


@pytest.mark.parametrize("room", [60, 70, 80, 100, 120, 140])
def test_times_and_addresses_fit_into_a_narrow_terminal(room: int) -> None:
    for columns, rows in ((SERVICES, RUNNING), (("name", "launched", "stuck"), [("welcome-back", *LAUNCHED)])):
        lines = table(columns, rows, room)
        assert max(map(width_of, lines)) <= room
        shown = "".join(" ".join(lines).split())
        for cell in (str(cell) for row in rows for cell in row):
            assert all(break_point in shown for word in cell.split() for break_point in break_points(word))


def test_a_table_too_wide_for_the_terminal_is_shown_row_by_row() -> None:
    assert table(SERVICES, RUNNING, 60) == [
        "service    mongo",
        "state      running",
        "address    mongodb://127.0.0.1:46361/?replicaSet=tidegate",
        "pid        12345",
        "since      2026-11-30T16:22:28+00:00",
        "restarts   1",
        "last exit  by SIGKILL",
        "",
        "service    broker",
        "state      running",
        "address    redis://127.0.0.1:40001/0",
        "pid        12346",
        "since      2026-11-30T16:22:28+00:00",
    ]


def test_a_time_is_broken_between_date_and_time() -> None:
    assert table(("name", "launched"), [("welcome-back", "2026-11-30T16:22:28.123Z")], 30) == [
        "name          launched",
        "welcome-back  2026-11-30T",
        "              16:22:28.123Z",
    ]


def test_the_width_comes_from_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((44, 20)))
    stream = Terminal()
    show("", COLUMNS, ROWS, stream)
    assert max(map(len, stream.getvalue().splitlines())) <= 44


@pytest.mark.parametrize("cell", ["two\nlines", "[bold]not markup[/bold]", ":smile:", "", None, 3, "日本", "e\u0301"])
def test_a_cell_is_printed_unchanged(cell: object) -> None:
    lines = table(("a", "b"), [(cell, "x")])
    assert "\n".join(line[:40] for line in lines[1:]).replace(" ", "").replace("x", "", 1) == str(cell).replace(" ", "")


def test_columns_align_with_wide_letters() -> None:
    lines = table(("a", "b"), [("日本", "x"), ("ab", "x")])
    assert len({width_of(line.rpartition("x")[0]) for line in lines[1:]}) == 1


def test_a_table_without_rows_or_names_is_no_error() -> None:
    assert table((), []) == [""]
    assert table(("a", "b"), []) == ["a  b"]
    stream = io.StringIO()
    show("", ("", ""), [("x", "y")], stream)
    assert stream.getvalue() == "x  y\n"
