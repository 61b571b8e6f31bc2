"""The help explains every command, and a wrong call gets an error of three lines at most."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from engine.cli import main
from tests.support.installation import Told

Tidegate = Callable[..., Told]
PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def commands() -> dict[str, object]:
    """Return every command by its words, e.g. `campaign plan`."""
    app = typer.Typer()
    for mount in main.MOUNTS:
        mount(app)

    def leaves(group: object, words: tuple[str, ...]) -> Iterator[tuple[str, object]]:
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            if hasattr(command, "commands"):
                yield from leaves(command, (*words, name))
            else:
                yield " ".join((*words, name)), command

    return dict(leaves(typer.main.get_command(app), ()))


NAMES = sorted(commands())


def test_the_commands_are_those_of_the_front_door() -> None:
    groups = {
        "campaign": "apply list show plan launch pause resume stop cancel report test-send replay",
        "import": "users events lists",
        "policy": "check show diff history route simulate",
        "queue": "list deadletters replay drop",
        "user": "show erase",
        "clock": "run show advance",
        "logs": "search ship",
    }
    single = {"init", "up", "run", "down", "status", "check", "migrate", "stats", "explain", "worker"}
    assert set(NAMES) >= single | {f"{group} {name}" for group, names in groups.items() for name in names.split()}


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_command_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([*name.split(), "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"Example: tidegate {name}" in text
    assert len(text.split("Usage:")[1].split("Options")[0].split()) > 6, "it says what it does"


@pytest.mark.parametrize("name", NAMES)
def test_the_page_about_the_command_line_has_every_command_with_an_example(name: str) -> None:
    assert f"tidegate {name}" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("words", [*NAMES, *(f"{group} nosuch" for group in ("campaign", "queue", "policy"))])
def test_a_wrong_option_or_command_exits_2_with_three_lines(
    words: str, tidegate: Tidegate, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tidegate(*words.split(), "--no-such-option")
    assert (result.code, result.out) == (2, "")
    assert 1 <= len(result.err.splitlines()) <= 3
    assert result.err.startswith("tidegate: No such")
    assert "--help" in result.err


@pytest.mark.parametrize("words", ["", "campaign", "clock"])
def test_a_group_without_a_command_exits_2_with_its_help_on_stderr(words: str, tidegate: Tidegate) -> None:
    result = tidegate(*words.split())
    assert (result.code, result.out) == (2, "")
    assert "Usage:" in result.err


def test_the_version_names_the_versions_of_the_services(installation: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert importlib.metadata.version("tidegate") in done.stdout.splitlines()[0]
    for service in ("mongo", "valkey", "elasticsearch"):
        assert service in done.stdout.lower()


def test_completion_can_be_installed(tidegate: Tidegate) -> None:
    assert "--install-completion" in tidegate("--help").out


@pytest.mark.parametrize("group", ["", *sorted({name.split()[0] for name in NAMES if " " in name})])
def test_a_groups_list_of_commands_cuts_no_sentence(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([*group.split(), "--help"]) == 0
    listed = capsys.readouterr().out.split("Commands:")[1]
    assert "..." not in listed
    assert listed.strip()[-1] == "."


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_command_names_no_python_type(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main.run([*name.split(), "--help"])
    options = capsys.readouterr().out.split("Options:")[1]
    assert not re.search(r"<(str|int|float|list)\b", options), options
