"""`init` and the first commands after it; `test_readme.py` covers the later ones."""

from __future__ import annotations

import shutil

import pytest

from tests.support.installation import Installation


@pytest.fixture
def fresh(installation: Installation) -> Installation:
    """A folder created with `init`, without the files of the tests' shop."""
    home = installation.folder
    shutil.rmtree(home)
    home.parent.mkdir(exist_ok=True)
    installation.folder = home.parent
    result = installation.call("init", home.name)
    assert result.code == 0, result.err
    installation.folder = home
    return installation


def test_init_writes_files_that_every_command_accepts_and_overwrites_none(fresh: Installation) -> None:
    files = {str(path.relative_to(fresh.folder)) for path in fresh.folder.rglob("*") if path.is_file()}
    assert {"Procfile", ".env.example", "policies/lanes.yaml", "conf/settings.yaml", ".gitignore"} <= files
    assert fresh.call("policy", "check").code == 0
    settings = fresh.folder / "conf" / "settings.yaml"
    settings.write_text("# mine\n")
    result = fresh.call("init")
    assert (result.code, result.out) == (2, "")
    assert "exists" in result.err
    assert settings.read_text() == "# mine\n"
