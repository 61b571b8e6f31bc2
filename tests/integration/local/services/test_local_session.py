"""A test session leaves no service, however it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from engine.process_identity import birth_of

ROOT = Path(__file__).parents[4]
INNER = """
import os, select
def test_it(services, database, broker_redis, cache_redis):
    print("serving", services.mongo_url, flush=True)
    if "HANG" in os.environ:
        while True:
            select.select([], [], [], 0.05)  # not `pause`: a signal that comes just before it would be slept over
"""
SHARING = """
from pathlib import Path
def test_it(services):
    with Path("seen").open("a") as seen:
        seen.write(f"{services.mongo_url} {services.broker_url}\\n")
"""
Session = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """Yield a function that starts an inner session with its own temporary folder.

    It waits until the session serves, unless it has workers.
    """
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    (tmp_path / "tests" / "test_inner.py").write_text(INNER)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    elastic: x\n")
    started: list[subprocess.Popen[str]] = []

    def start(*, hang: bool, workers: int = 0) -> subprocess.Popen[str]:
        env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT), **({"HANG": "1"} if hang else {})}
        env = {name: value for name, value in env.items() if not name.startswith(("TIDEGATE_TEST_", "PYTEST_XDIST_"))}
        inner = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-s", "-q", "-p", "no:cacheprovider", "-n", str(workers), "tests"],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(inner)
        assert inner.stdout is not None
        assert workers or any("serving mongodb://" in line for line in inner.stdout)
        return inner

    yield start
    for inner in started:
        if inner.poll() is None:
            inner.kill()
            inner.communicate()


def record(folder: Path) -> dict[str, int]:
    """Return the pids in the only record below `folder`."""
    (path,) = folder.glob("tidegate-tests-*/*/services.json")
    return {name: entry["process"]["pid"] for name, entry in json.loads(path.read_text()).items()}


def left(folder: Path) -> list[Path]:
    return list(folder.glob("tidegate-tests-*/*"))


def test_a_session_ends_its_services_and_removes_their_data(session: Session, tmp_path: Path) -> None:
    inner = session(hang=False)
    output, _ = inner.communicate()
    assert inner.returncode == 0, output
    assert left(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_session_ends_its_services(session: Session, tmp_path: Path, number: signal.Signals) -> None:
    inner = session(hang=True)
    services = record(tmp_path)
    inner.send_signal(number)
    inner.communicate()
    assert [name for name, pid in services.items() if birth_of(pid)] == []
    assert left(tmp_path) == []


def test_the_services_of_a_killed_session_are_ended_by_the_next(session: Session, tmp_path: Path) -> None:
    inner = session(hang=True)
    services = record(tmp_path)
    inner.kill()
    inner.communicate()
    assert all(psutil.pid_exists(pid) for pid in services.values())
    after, _ = session(hang=False).communicate()
    assert "1 passed" in after
    assert [name for name, pid in services.items() if birth_of(pid)] == []
    assert left(tmp_path) == []


def test_workers_share_one_set_which_ends_after_them(session: Session, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir(exist_ok=True)
    for number in (1, 2):
        (tmp_path / "tests" / f"test_worker_{number}.py").write_text(SHARING)
    inner = session(hang=False, workers=2)
    output, _ = inner.communicate()
    assert "3 passed" in output
    assert len(set((tmp_path / "seen").read_text().splitlines())) == 1
    assert left(tmp_path) == []
