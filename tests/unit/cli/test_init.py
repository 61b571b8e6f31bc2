"""`tidegate init` writes a complete set: every file that another one names exists, and everybody can read it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.campaign.load import load_campaign
from engine.catalogue.workspace_file import read_workspaces
from engine.cli.init import files, init, program
from engine.cli.main import MOUNTS
from engine.errors import WrongCall
from engine.local.processes.procfile import read_procfile
from engine.policy.load import load_policies
from engine.settings import load_settings
from engine.settings.variables import read_dotenv, settings_among

PATH = re.compile(r"(?<![\w./$-])(?:\.\./)*(?:conf|data|docs|examples|policies|campaigns|templates)/[\w./-]*\w")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init(tmp_path / "new")
    return tmp_path / "new"


def test_every_file_named_in_the_written_files_exists(folder: Path) -> None:
    named = 0
    for path in folder.rglob("*"):
        if path.is_file() and "schemas" not in path.parts:
            for number in PATH.findall(path.read_text(encoding="utf-8")):
                near = path.parent / number
                assert near.exists() or (folder / number).exists(), f"{path.relative_to(folder)} names {number}"
                named += 1
    assert named >= 6


def test_written_files_are_readable_by_everybody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for environment in ("default", "production"):
        load_settings(environment=environment)
    policies = load_policies(Path("policies"))
    catalogues = dict(read_workspaces(Path("conf/workspaces")))
    for file in Path("campaigns").glob("*.yaml"):
        load_campaign(file, catalogues, policies)
    commands = {name for names in MOUNTS.values() for name in names}
    for kind in read_procfile(Path("Procfile")):
        program, command, *_ = kind.command.split()
        assert (program, command in commands) == ("tidegate", True)
        assert command != "worker" or kind.command.split()[2] in policies.fleets


def test_each_variable_that_the_example_offers_is_a_setting(folder: Path, tmp_path: Path) -> None:
    text = (folder / ".env.example").read_text(encoding="utf-8")
    offered = re.sub(r"(?m)^# (?=TIDEGATE_\w+=)", "", text)
    (tmp_path / "filled").write_text(re.sub(r"=$", "=x", offered, flags=re.MULTILINE))
    values = read_dotenv(tmp_path / "filled")
    assert len(values) >= 10
    assert len(list(settings_among(values))) == len(values) - 1, "all but TIDEGATE_ENV"


def test_existing_files_are_not_overwritten(folder: Path) -> None:
    for name in files():
        (folder / name).write_text("mine")
    with pytest.raises(WrongCall, match="exists"):
        init(folder)
    assert {(folder / name).read_text() for name in files()} == {"mine"}


def test_next_steps_work_if_the_program_is_not_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tidegate").write_text("#!/bin/sh\n")
        (tmp_path / folder / "tidegate").chmod(0o755)
    own = tmp_path / "ours" / "tidegate"
    monkeypatch.setattr("sys.argv", [str(own), "init"])
    for path, typed in (("", str(own)), ("theirs", str(own)), ("ours", "tidegate")):
        monkeypatch.setenv("PATH", str(tmp_path / path) if path else "/nowhere")
        assert program() == typed
    init(tmp_path / "new")
    assert (
        f"  tidegate campaign launch welcome-back{' ' * 23}the mails are in var/maildir/new" in capsys.readouterr().err
    )
