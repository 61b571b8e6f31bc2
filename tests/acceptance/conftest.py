"""The command line as a user has it: a folder, a database, and commands with their exit code, stdout and stderr."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.cli.main import run
from tests.integration.conftest import installation, make_world, migrated, world
from tests.support.installation import Installation, Told

__all__ = ["installation", "make_world", "migrated", "world"]

Tidegate = Callable[..., Told]


@pytest.fixture
def tidegate(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Tidegate:
    """Run a command in this process, in the folder and with the variables of `installation`: some 100 times faster."""
    monkeypatch.chdir(installation.folder)
    for name, value in installation.env.items():
        monkeypatch.setenv(name, value)

    def call(*arguments: str) -> Told:
        capsys.readouterr()
        code = run(list(arguments))
        said = capsys.readouterr()
        return Told(code, said.out, said.err)

    return call
