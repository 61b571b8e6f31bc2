"""The killer of the chaos replay, on a real supervisor with idle processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from examples.grocer import chaos

SUPERVISE = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from engine.local.processes.output import Output
from engine.local.processes.procfile import ProcessType
from engine.local.processes.supervisor import Backoff, Supervisor

types = [
    ProcessType("alone", f"{sys.executable} {sys.argv[1]}/worker.py"),
    ProcessType("fleet", f"{sys.executable} {sys.argv[1]}/fleet.py {sys.argv[1]}/worker.py"),
]
names = [kind.name for kind in types]
Supervisor(
    types,
    Output(sys.stdout, names, now=lambda: datetime.now(UTC)),
    Path.cwd(),
    backoff=Backoff(first=timedelta(milliseconds=10), longest=timedelta(milliseconds=10)),
).run()
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A supervisor of `alone`, and of `fleet` with one child."""
    (tmp_path / "worker.py").write_text("import signal; signal.pause()")
    (tmp_path / "fleet.py").write_text(
        "import subprocess, sys; sys.exit(subprocess.call([sys.executable, sys.argv[1]]))"
    )
    argv = [sys.executable, "-c", SUPERVISE, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def until(process: subprocess.Popen[str], holds: Callable[[], bool]) -> None:
    """Wait until `holds` returns true, while the supervisor lives and at most 30 s."""
    deadline = time.monotonic() + 30
    while not holds():
        assert process.poll() is None
        assert time.monotonic() < deadline
        psutil.wait_procs([psutil.Process(process.pid)], timeout=0.05)


def test_only_workers_are_killed_and_never_the_main_process_of_a_fleet(supervisor: subprocess.Popen[str]) -> None:
    until(supervisor, lambda: len(chaos.supervised(supervisor.pid)) == 2 and len(descendants(supervisor)) == 4)
    victims = chaos.supervised(supervisor.pid)
    assert all(not victim.children() for victim in victims)
    assert any("worker.py" in " ".join(victim.cmdline()[-1:]) for victim in victims)
    assert [process.parent() in victims for process in chaos.kept(supervisor.pid)] == [False], (
        "the child of `fleet` alone"
    )


def test_a_killed_worker_is_replaced_and_reported(supervisor: subprocess.Popen[str]) -> None:
    until(supervisor, lambda: len(descendants(supervisor)) == 4)
    killer = chaos.Killer(lambda: chaos.supervised(supervisor.pid), timedelta(milliseconds=100), seed=1)
    with killer:
        until(supervisor, lambda: len(killer.kills) >= 3)
    assert {kill.name for kill in killer.kills} <= {"alone", "fleet"}
    assert not any(psutil.pid_exists(kill.pid) and kill.pid == supervisor.pid for kill in killer.kills)
    until(supervisor, lambda: len(descendants(supervisor)) == 4)


def test_without_workers_nothing_is_killed() -> None:
    assert chaos.Killer(list, timedelta(seconds=1)).strike() is None
    assert chaos.supervised(2**22 + 1) == []


def descendants(supervisor: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes below the supervisor: the guard, `alone`, `fleet` and its child."""
    return [child for child in psutil.Process(supervisor.pid).children(recursive=True) if child.is_running()]
