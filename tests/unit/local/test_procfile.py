from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import InvalidSource, WrongCall
from engine.local.procfile import ProcessType, launch, parse_scale, read_procfile


def written(folder: Path, text: str) -> Path:
    path = folder / "Procfile"
    path.write_text(text)
    return path


def test_lines_are_read_in_order_without_comments_and_blanks(tmp_path: Path) -> None:
    path = written(tmp_path, "# fleets\n\nweb: serve --port 1\n  # more\nslow-2: work -Q 'a b' # kept\n")
    assert read_procfile(path) == (ProcessType("web", "serve --port 1"), ProcessType("slow-2", "work -Q 'a b' # kept"))


def test_every_wrong_line_is_told_with_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, "web serve\nslow: work\nslow: again\nempty:\n")
    with pytest.raises(InvalidSource) as caught:
        read_procfile(path)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[1] for line in lines] == ["1", "3", "4"]
    assert "expected `name: command`" in lines[0]
    assert "stands in the file twice" in lines[1]


def test_a_file_without_a_process_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSource, match="no process type"):
        read_procfile(written(tmp_path, "# nothing\n"))


def test_a_missing_file_is_a_wrong_call_with_a_remedy(tmp_path: Path) -> None:
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


def test_a_plain_command_runs_without_a_shell() -> None:
    how = launch('A=1 B="x y" serve --name "$NAME" ${PORT}$UNSET $UNSET', {"NAME": "a web", "PORT": "80"})
    assert how.argv == ("serve", "--name", "a web", "80")
    assert how.env == {"A": "1", "B": "x y"}
    assert not how.by_shell


@pytest.mark.parametrize(
    "command",
    ["a && b", "a | b", "a > f", "echo *", "echo '$HOME'", "echo $(date)", "a; b", "echo `date`", "A=1", "a 'b"],
)
def test_what_needs_a_shell_gets_one(command: str) -> None:
    how = launch(command, {})
    assert how.argv == ("/bin/sh", "-c", command)
    assert how.by_shell
