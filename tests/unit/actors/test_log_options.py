"""A process logs sentences to a terminal, JSON to a pipe, or the format of `--log-format`; its log files are JSON."""

from __future__ import annotations

import sys

import pytest

from actors.log_options import log_options
from engine.settings import Settings


@pytest.mark.parametrize(
    ("form", "terminal", "stdout", "console"),
    [
        ("", True, False, True),
        ("", False, True, None),
        ("people", False, False, True),
        ("json", True, True, None),
    ],
)
def test_lines_are_readable_on_a_terminal_and_json_in_a_pipe(
    form: str, terminal: bool, stdout: bool, console: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    options = log_options(Settings(), "run", form=form)
    assert (options.stdout, options.console) == (stdout, console)
    assert options.folder == Settings().log_folder


def test_logs_stdout_false_prints_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    settings = Settings.model_validate({"logs": {"stdout": False}})
    options = log_options(settings, "run")
    assert (options.stdout, options.console) == (False, False)
