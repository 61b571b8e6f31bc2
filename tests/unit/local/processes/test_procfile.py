from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from honcho.environ import expand_processes, parse_procfile

from engine.errors import InvalidSource, WrongCall
from engine.local.processes.procfile import (
    ProcessType,
    by_shell,
    environment,
    own_folders,
    parse_scale,
    ports,
    read_procfile,
)


def written(folder: Path, text: str) -> Path:
    path = folder / "Procfile"
    path.write_text(text)
    return path


def test_lines_are_read_in_order_without_comments_and_blanks(tmp_path: Path) -> None:
    path = written(tmp_path, "# fleets\n\nweb: serve --port 1\n  # more\nslow-2: work -Q 'a b' # kept\n")
    assert read_procfile(path) == (ProcessType("web", "serve --port 1"), ProcessType("slow-2", "work -Q 'a b' # kept"))


def test_every_wrong_line_is_reported_with_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, "web serve\nslow: work\nslow: again\nempty:\n")
    with pytest.raises(InvalidSource) as caught:
        read_procfile(path)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[1] for line in lines] == ["1", "3", "4"]
    assert "expected `name: command`" in lines[0]
    assert "is in the file twice" in lines[1]


def test_a_file_without_a_process_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSource, match="no process type"):
        read_procfile(written(tmp_path, "# nothing\n"))


def test_a_missing_procfile_is_a_usage_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(WrongCall, match="No such file") as caught:
        read_procfile(tmp_path / "Procfile")
    assert "tidegate init" in caught.value.remedy


def test_scale_is_read_from_several_texts_and_zero_leaves_a_type_out() -> None:
    assert parse_scale(["slow=4, web=0", "fast=2"], ["web", "slow", "fast"]) == {"slow": 4, "web": 0, "fast": 2}


@pytest.mark.parametrize(
    ("text", "complaint", "remedy"),
    [
        ("slow", "expected name=value", "web=2"),
        ("slow=", "expected name=value", "web=2"),
        ("slwo=2", "no process type 'slwo'", "did you mean slow?"),
        ("x=2", "no process type 'x'", "there are web, slow"),
        ("slow=-1", "expected a whole number, got '-1'", "slow=2"),
        ("slow=1.5", "expected a whole number, got '1.5'", "slow=2"),
        ("slow=²", "expected a whole number", "slow=2"),
    ],
)
def test_a_wrong_scale_is_refused_with_a_remedy(text: str, complaint: str, remedy: str) -> None:
    with pytest.raises(WrongCall, match=complaint) as caught:
        parse_scale([text], ["web", "slow"])
    assert remedy in caught.value.remedy


def test_each_process_gets_the_port_that_honcho_gives_it(tmp_path: Path) -> None:
    text = "web: a\nslow: b\nclock: c\n"
    scale = {"slow": 3, "clock": 1}
    theirs = expand_processes(parse_procfile(text).processes, concurrency=scale, env={}, port=5000)
    types = read_procfile(written(tmp_path, text))
    assert list(ports(types, scale, None)) == [int(process.env["PORT"]) for process in theirs]


@pytest.mark.parametrize(("given", "first"), [("8000", 8000), ("", 5000), ("x", 5000), (None, 5000)])
def test_a_given_port_is_the_first_one(given: str | None, first: int) -> None:
    assert list(ports([ProcessType("a", "x"), ProcessType("b", "x")], {"a": 0}, given)) == [first + 100]


def test_programs_of_this_installation_come_first_on_the_path() -> None:
    merged = environment({"PATH": "/given", "A": "1"}, {"A": "2"})
    folders = merged["PATH"].split(os.pathsep)
    assert folders[0] == str(Path(sys.executable).parent)
    assert folders[-1] == "/given"
    assert merged["A"] == "2"


def test_a_script_called_from_elsewhere_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "tidegate"
    script.touch()
    monkeypatch.setattr(sys, "argv", [str(script), "up"])
    assert own_folders() == [str(Path(sys.executable).parent), str(tmp_path)]


@pytest.mark.parametrize(
    ("line", "run"),
    [
        ("tidegate worker fast", "exec tidegate worker fast"),
        ("A=1 B='x y' ./serve --name \"$NAME\" # kept", "A=1 B='x y' exec ./serve --name \"$NAME\" # kept"),
        ("exec serve", "exec serve"),
        ("echo $A", "echo $A"),
        ("cd x", "cd x"),
        ("a && b", "a && b"),
        ("A=$(date) b", "A=$(date) b"),
        ("A=1", "A=1"),
        ("$PROGRAM x", "$PROGRAM x"),
        ("! a", "! a"),
    ],
)
def test_a_plain_command_replaces_its_shell(line: str, run: str) -> None:
    assert by_shell(line) == ("/bin/sh", "-c", run)
