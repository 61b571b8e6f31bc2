"""The package as a stranger gets it: built, installed without the repository, used line by line as the README says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LOCK = ROOT / "requirements.lock"
BIN = Path(sys.executable).parent
PATIENCE = 120.0
COMPILE = "import engine.cli.run; from engine.cli.prefork import import_all; import_all()"


def block(title: str) -> list[str]:
    """Return the lines of the first block of a section, without their comments."""
    text = README.split(f"\n## {title}\n")[1].split("```")[1]
    return [line for raw in text.strip().splitlines() if (line := re.sub(r"\s{2,}#.*", "", raw).strip())]


def done(*command: object, cwd: Path, env: dict[str, str] | None = None) -> str:
    ran = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    done(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def programs(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a fresh environment that has the wheel with its extra `local`, at the versions of the lock."""
    home = tmp_path_factory.mktemp("fresh") / "venv"
    done(BIN / "uv", "venv", "--quiet", "--python", sys.executable, home, cwd=built)
    (wheel,) = built.glob("*.whl")
    install = [BIN / "uv", "pip", "install", "--quiet", "--python", home / "bin" / "python", "-c", LOCK]
    try:  # the cache holds the packages of the tests' environment
        done(*install, "--offline", f"{wheel}[local]", cwd=built)
    except AssertionError:
        done(*install, f"{wheel}[local]", cwd=built)
    done(home / "bin" / "python", "-c", COMPILE, cwd=built, env=clean(home / "bin"))  # as pip compiles it
    return home / "bin"


def clean(programs: Path) -> dict[str, str]:
    """Return an environment without the repository and without Elasticsearch, which no test here needs."""
    ours = ("TIDEGATE_", "PYTHON", "VIRTUAL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PATH": f"{programs}:{kept['PATH']}", "TIDEGATE_SERVICES__ELASTIC_URL": "http://127.0.0.1:9"}


def test_the_sdist_makes_the_same_wheel_and_both_hold_the_files_of_the_engine(built: Path, tmp_path: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        packed.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    done(sys.executable, "-m", "hatchling", "build", "-d", tmp_path / "again", "-t", "wheel", cwd=source)
    (again,) = (tmp_path / "again").iterdir()
    names = set(zipfile.ZipFile(wheel).namelist())
    assert set(zipfile.ZipFile(again).namelist()) == names
    for folder in ("policies", "conf", "examples/start"):
        files = [path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()]
        assert {f"engine/shipped_files/{path}" for path in files} <= names
    assert not [name for name in names if name.startswith(("tests/", "bench/", "docs/"))]


def test_the_extras_named_in_the_readme_exist() -> None:
    named = set(re.findall(r"tidegate\[(\w+)\]", "\n".join(block("Install"))))
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert named
    assert all(re.search(rf"^{extra} = \[", text, re.MULTILINE) for extra in (*named, "parquet"))


class Terminal:
    """A reader's two terminals: one holds `tidegate up`, the other runs one line after another."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder, self.env = folder, env
        self.up: subprocess.Popen[str] | None = None
        self.said: list[str] = []

    def type(self, line: str) -> str:
        """Run a line to its end, as a shell does; a `cd` holds for later lines."""
        result = done("bash", "-ec", f"{line}\npwd > {self.folder.parent}/.pwd", cwd=self.folder, env=self.env)
        self.folder = Path((self.folder.parent / ".pwd").read_text().strip()) if "cd " in line else self.folder
        return result

    def begin(self, line: str) -> None:
        """Run a line that keeps running, and wait until it is ready."""
        self.up = subprocess.Popen(
            line.split(), cwd=self.folder, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self.up.stdout is not None
        for told in self.up.stdout:
            self.said.append(told)
            if "ready: " in told:
                self.reader = threading.Thread(target=self._rest, args=(self.up.stdout,))
                self.reader.start()
                return
        raise AssertionError("".join(self.said))

    def _rest(self, stream: IO[str]) -> None:
        with stream:
            self.said.extend(stream)

    def mails(self) -> list[Path]:
        """Wait for at least two mails and return all."""
        pause, deadline = threading.Event(), time.monotonic() + PATIENCE
        while len(paths := list((self.folder / "var" / "maildir" / "new").glob("*"))) < 2:
            assert time.monotonic() < deadline, "".join(self.said)
            pause.wait(0.05)
        return paths


@pytest.fixture
def terminal(programs: Path, tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path, clean(programs))
    yield made
    if made.up is not None:
        made.up.terminate()
        made.up.wait(PATIENCE)
        made.reader.join()
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.long(seconds=25)
@pytest.mark.timeout(280)
def test_the_use_it_section_leads_to_two_mails_on_disk(terminal: Terminal, programs: Path) -> None:
    values: dict[str, str] = {}
    for line in block("Use it"):
        if line == "tidegate up":
            terminal.begin(line)
        else:
            if line.startswith("ls "):
                terminal.mails()
            values[line] = terminal.type(line)
    started = "".join(terminal.said)
    assert "starting mongo, broker, cache" in started
    assert "mails go to the Maildir var/maildir" in started
    assert re.search(r"clock +\| info +worker\.started: A process is up", started)
    plan = values["tidegate campaign plan welcome-back"]
    assert "2 of 4 users" in plan
    assert "is launched" in values["tidegate campaign launch welcome-back"]
    assert "var/maildir" in values["tidegate campaign launch welcome-back"]
    mails = [path.read_text() for path in terminal.mails()]
    assert len(mails) == len(values["ls var/maildir/new"].split()) == 2
    assert any("To: ada@example.org" in mail and "02 March 2025" in mail for mail in mails)
    assert "passes  not unsubscribed: true" in values["tidegate explain welcome-back hh-1"]
    assert "delivery.sent" in values["tidegate logs search 'campaign:welcome-back user:hh-1' --story"]
    assert terminal.up is not None
    assert terminal.up.wait(PATIENCE) == 0, "tidegate down has ended it"
    left = [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(terminal.folder)]
    assert left == []
    where = done(programs / "python", "-c", "import engine; print(engine.__file__)", cwd=terminal.folder)
    assert Path(where.strip()).is_relative_to(programs.parent)
