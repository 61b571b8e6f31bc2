from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from engine.local.processes.process_groups import Command, end_groups, marked_groups, members, spawn
from engine.local.services.ports import free_ports, is_free

ONE = "import signal; print(1, flush=True); signal.pause()"
TWO = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ONE!r}])"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[bytes]]:
    """A group of two processes that ignore no signal; its member has started."""
    with subprocess.Popen([sys.executable, "-c", TWO], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        end_groups([process.pid], patience=timedelta(0))


def test_a_group_ends_with_all_its_members(leader: subprocess.Popen[bytes]) -> None:
    assert len(members(leader.pid)) == 2
    end_groups([leader.pid], patience=timedelta(seconds=30))
    assert members(leader.pid) == []


def test_a_process_that_ignores_sigterm_is_killed_at_the_stop_timeout() -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        end_groups([process.pid], patience=timedelta(milliseconds=50))
        assert process.wait() == -9


def test_ending_a_group_that_is_gone_is_no_error() -> None:
    end_groups([2**22 + 1], patience=timedelta(seconds=1))


def test_a_marked_process_is_found_by_its_mark(tmp_path: Path) -> None:
    code = "import signal; print('here', flush=True); signal.pause()"
    command = Command((sys.executable, "-c", code), {"TIDEGATE_TEST_MARK": str(tmp_path)})
    child = spawn(command, log=tmp_path / "log", cwd=tmp_path)
    try:
        while child.poll() is None and not (tmp_path / "log").read_bytes():
            threading.Event().wait(0.01)  # before that the kernel may still be setting up its environment
        assert marked_groups("TIDEGATE_TEST_MARK", str(tmp_path)) == [child.pid]
        assert marked_groups("TIDEGATE_TEST_MARK", str(tmp_path.parent)) == []
    finally:
        end_groups([child.pid], patience=timedelta(0))
        child.wait()


def test_children_inherit_the_niceness_of_a_process(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys; print(os.getpriority(os.PRIO_PROCESS, 0), flush=True);"
        "subprocess.run([sys.executable, '-c', 'import os; print(os.getpriority(os.PRIO_PROCESS, 0), flush=True)'])"
    )
    child = spawn(Command((sys.executable, "-c", code), {}, niceness=5), log=tmp_path / "log", cwd=tmp_path)
    assert child.wait(60) == 0
    assert (tmp_path / "log").read_text().split() == ["5", "5"]


def test_free_ports_are_different_and_can_be_bound() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert all(is_free(port) for port in ports)
