"""Children of a process that has imported everything: it keeps them, ends them, and never leaves one behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

KEEP = """
import signal, sys
from datetime import timedelta
from engine.local.processes.prefork import keep_children
count, patience, do = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
say = lambda text: print("told", text, flush=True)
wanted = (lambda: int(open(sys.argv[4]).read() or count)) if len(sys.argv) > 4 else None
code = keep_children(count, timedelta(seconds=patience), say=say, curable=(70,), wanted=wanted)
if code is not None:
    print("over", flush=True)
    sys.exit(code)
import os
def tell(text):  # in one write, for two children may speak at once
    os.write(1, f"{text}\\n".encode())
exec(do)
"""
SERVE = """
import select
tell(f"born {os.getpid()}")
while True:
    select.select([], [], [], 0.05)  # not `pause`: a signal that comes just before it would be slept over
"""
STUBBORN = f"signal.signal(signal.SIGTERM, lambda *_: tell('no')){SERVE}"
IN_ORDER = f"signal.signal(signal.SIGTERM, lambda *_: (tell('in order'), sys.exit(0))){SERVE}"
Keep = Callable[..., "Parent"]


class Parent:
    """A process that keeps children; the test reads its lines as they arrive."""

    def __init__(self, count: int, patience: float, do: str, *more: str) -> None:
        argv = [sys.executable, "-c", KEEP, str(count), str(patience), do, *more]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def born(self) -> int:
        """Return the pid of the next child that reports its start."""
        word, pid = self.line().split()
        assert word == "born"
        return int(pid)

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal to the parent alone; return its exit code and its last output."""
        self.process.send_signal(number)
        said, _ = self.process.communicate()
        return self.process.returncode, said


@pytest.fixture
def keep() -> Iterator[Keep]:
    parents: list[Parent] = []

    def start(count: int = 1, do: str = SERVE, patience: float = 30.0, *more: str) -> Parent:
        parents.append(Parent(count, patience, do, *more))
        return parents[-1]

    yield start
    for parent in parents:
        if parent.process.poll() is None:
            os.killpg(parent.process.pid, signal.SIGKILL)
            parent.process.communicate()


def test_a_killed_child_is_forked_again_and_its_sibling_continues(keep: Keep) -> None:
    parent = keep(2)
    first, second = parent.born(), parent.born()
    os.kill(first, signal.SIGKILL)
    again = "ended by SIGKILL; it is forked again in 0.05 s"
    assert parent.line() in {f"told child {number} (pid {first}) {again}" for number in (1, 2)}
    third = parent.born()
    assert {child.pid for child in psutil.Process(parent.process.pid).children()} == {second, third}


def test_a_child_that_ends_itself_as_unwell_is_forked_again(keep: Keep) -> None:
    parent = keep(do="tell(f'born {os.getpid()}'); sys.exit(70)")
    first = parent.born()
    assert parent.line() == f"told child 1 (pid {first}) ended with code 70; it is forked again in 0.05 s"
    assert parent.born() != first


def test_a_child_that_ends_with_another_code_ends_all_with_that_code(keep: Keep) -> None:
    parent = keep(2, f"signal.signal(signal.SIGUSR1, lambda *_: sys.exit(3)){SERVE}")
    first, second = parent.born(), parent.born()
    os.kill(first, signal.SIGUSR1)
    said, _ = parent.process.communicate()
    assert parent.process.returncode == 3
    (line,) = [line for line in said.splitlines() if line.startswith("told ")]
    assert line.endswith(f" (pid {first}) ended with code 3; the others are asked to end")
    assert not psutil.pid_exists(second)


def test_the_parent_ends_as_soon_as_its_last_child(keep: Keep) -> None:
    parent = keep(do="sys.exit(2)", patience=3_600)
    said, _ = parent.process.communicate(timeout=60)
    assert parent.process.returncode == 2
    assert said == "over\n", "whoever supervises tells of our code"


def test_sigterm_reaches_the_children_and_the_parent_ends_after_them(keep: Keep) -> None:
    parent = keep(2, IN_ORDER)
    children = [parent.born(), parent.born()]
    assert parent.end(signal.SIGTERM) == (0, "in order\nin order\nover\n")
    assert not [pid for pid in children if psutil.pid_exists(pid)]


def test_ctrl_c_ends_the_children_in_order_and_exits_130(keep: Keep) -> None:
    parent = keep(do=IN_ORDER)
    parent.born()
    os.killpg(parent.process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    said, _ = parent.process.communicate()
    assert (parent.process.returncode, said) == (130, "in order\nover\n")


def test_a_child_that_ignores_sigterm_is_killed_before_the_stop_timeout(keep: Keep) -> None:
    parent = keep(do=STUBBORN, patience=0.5)
    child = parent.born()
    assert parent.end(signal.SIGTERM) == (0, "no\nover\n")
    assert not psutil.pid_exists(child)


def test_a_second_ctrl_c_kills_at_once(keep: Keep) -> None:
    parent = keep(do=STUBBORN, patience=3_600)
    parent.born()
    parent.process.send_signal(signal.SIGINT)
    assert parent.line() == "no"
    assert parent.end(signal.SIGINT) == (130, "over\n")


def test_children_are_killed_when_their_parent_is(keep: Keep) -> None:
    parent = keep(2, IN_ORDER)
    parent.born()
    parent.born()
    assert parent.end(signal.SIGKILL) == (-signal.SIGKILL, ""), "their output ends, so they have"


def test_more_or_fewer_children_follow_an_edit_and_the_others_continue(keep: Keep, tmp_path: Path) -> None:
    wanted = tmp_path / "wanted"
    wanted.write_text("1")
    parent = keep(1, IN_ORDER, 30.0, str(wanted))
    first = parent.born()
    wanted.write_text("3")
    assert parent.line() == "told processes wanted: 3 (until now 1)"
    others = {parent.born(), parent.born()}
    assert {child.pid for child in psutil.Process(parent.process.pid).children()} == {first, *others}
    wanted.write_text("1")
    assert parent.line() == "told processes wanted: 1 (until now 3)"
    assert [parent.line(), parent.line()] == ["in order", "in order"]
    psutil.wait_procs([psutil.Process(pid) for pid in others if psutil.pid_exists(pid)], timeout=10)
    assert psutil.Process(first).is_running(), "those that end end nobody else"
    os.kill(first, signal.SIGKILL)
    assert parent.line().startswith("told child 1")
    assert parent.born() != first
    code, said = parent.end(signal.SIGTERM)
    assert (code, said.splitlines()) == (0, ["in order", "over"])


def test_a_child_that_is_not_wanted_and_does_not_end_is_killed(keep: Keep, tmp_path: Path) -> None:
    wanted = tmp_path / "wanted"
    wanted.write_text("2")
    parent = keep(2, STUBBORN, 2.0, str(wanted))
    pids = {parent.born(), parent.born()}
    wanted.write_text("1")
    assert parent.line() == "told processes wanted: 1 (until now 2)"
    assert parent.line() == "no"
    gone, _ = psutil.wait_procs([psutil.Process(pid) for pid in pids], timeout=10)
    assert len(gone) == 1
    parent.end(signal.SIGTERM)
