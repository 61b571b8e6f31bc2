"""Whoever follows a runbook at night types commands that exist, with options that they take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from engine.cli import main
from engine.telemetry.log_query import FIELDS

BOOKS = sorted((Path(__file__).parents[3] / "docs" / "runbooks").glob("*.md"))
LATER = {"access", "map", "web"}
"""Commands of other parts of the engine, which have their own tests."""


def tree() -> Any:
    app = typer.Typer()
    for mount in main.MOUNTS:
        mount(app)
    return typer.main.get_command(app)


def called(path: Path) -> list[str]:
    """Return what a page tells to type: indented by a prompt, or quoted."""
    text = path.read_text(encoding="utf-8")
    return [*re.findall(r"^\$ (tidegate .*)$", text, re.MULTILINE), *re.findall(r"`(tidegate [^`\n]+)`", text)]


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_each_command_of_a_runbook_exists_and_takes_its_options(path: Path) -> None:
    root, commands = tree(), called(path)
    assert commands
    for line in commands:
        words = shlex.split(line.partition(" | ")[0])[1:]
        command: Any = root
        while words and hasattr(command, "commands") and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        if command is root and words[0] in LATER:
            continue
        assert not hasattr(command, "commands") or not words, f"{path.name}: {line}"
        known = {option for parameter in command.params for option in parameter.opts}
        for word in words:
            if word.startswith("--"):
                assert word in known, f"{path.name}: {line}: {word}"


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_each_log_search_of_a_runbook_asks_for_fields_that_lines_have(path: Path) -> None:
    for line in called(path):
        if line.startswith("tidegate logs search"):
            for term in shlex.split(line)[3].split():
                assert term.partition(":")[0] in FIELDS, line
