"""Tables keep every word: in a pipe they are as wide as they are, on a terminal their cells go on in the next line."""

from __future__ import annotations

import io
import os

import pytest

from engine.cli.tables import show, table, width_of

COLUMNS = ("query", "calls", "what")
ROWS = [("enrolments.enter_alike", "1,000", "a sentence that is longer than the others"), ("users.read", "2", "")]
WORDS = {word for row in (COLUMNS, *ROWS) for cell in row for word in cell.split()}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", ["", "20", "80"])
def test_in_a_pipe_each_row_is_one_line_whatever_columns_says(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_on_a_terminal_no_word_is_cut_and_no_line_is_too_long_for_what_its_words_allow(room: int) -> None:
    lines = table(COLUMNS, ROWS, room)
    assert {word for line in lines for word in line.split()} == WORDS
    least = sum(len(word) for word in ("enrolments.enter_alike", "calls", "sentence")) + 4
    assert max(map(len, lines)) <= max(room, least)


def test_a_terminal_is_asked_for_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((44, 20)))
    stream = Terminal()
    show("", COLUMNS, ROWS, stream)
    assert max(map(len, stream.getvalue().splitlines())) <= 44


@pytest.mark.parametrize("cell", ["two\nlines", "[bold]not markup[/bold]", ":smile:", "", None, 3, "日本", "e\u0301"])
def test_a_cell_is_shown_as_it_is(cell: object) -> None:
    lines = table(("a", "b"), [(cell, "x")])
    assert "\n".join(line[:40] for line in lines[1:]).replace(" ", "").replace("x", "", 1) == str(cell).replace(" ", "")


def test_columns_stand_below_each_other_for_wide_letters_too() -> None:
    lines = table(("a", "b"), [("日本", "x"), ("ab", "x")])
    assert len({width_of(line.rpartition("x")[0]) for line in lines[1:]}) == 1


def test_a_table_without_rows_or_names_is_no_error() -> None:
    assert table((), []) == [""]
    assert table(("a", "b"), []) == ["a  b"]
    stream = io.StringIO()
    show("", ("", ""), [("x", "y")], stream)
    assert stream.getvalue() == "x  y\n"
