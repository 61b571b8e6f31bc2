"""The supervisor as a separate process, with real programs under it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from honcho.environ import parse_procfile

from engine.local.processes.orphan_guard import MARK
from engine.local.processes.procfile import read_procfile
from engine.process_identity import birth_of

ROOT = Path(__file__).parents[4]
DRIVER = """
import json, sys
from datetime import datetime, timedelta
from pathlib import Path
from engine.local.processes.output import Output
from engine.local.processes.procfile import parse_scale, read_procfile
from engine.local.processes.supervisor import Backoff, Supervisor, instances
options = json.loads(sys.argv[1])
types = read_procfile(Path("Procfile"))
scale = parse_scale(options.get("scale", []), [kind.name for kind in types])
output = Output(sys.stdout, [name for name, _ in instances(types, scale)], now=datetime.now)
sys.exit(Supervisor(
    types, output, Path.cwd(), scale=scale, env=options.get("env", {}),
    stop_timeouts={name: timedelta(seconds=value) for name, value in options.get("stop", {}).items()},
    backoff=Backoff(timedelta(milliseconds=1), timedelta(seconds=1), timedelta(seconds=options.get("healthy", 60))),
).run())
"""
# Prints each SIGTERM, and ends at the first unless it is told to be stubborn; if it is slow, only once the supervisor
# has seen the end of the shell before it.
PROGRAM = """
import os, select, signal, sys
shell = os.getppid()
def there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
def hear(number, frame):
    print("heard", signal.Signals(number).name, flush=True)
    if "slow" in sys.argv:
        while there(shell):
            select.select([], [], [], 0.01)
        print("slowly done", flush=True)
    if "stubborn" not in sys.argv:
        sys.exit(0)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, hear)
print("ready", *sys.argv[1:], flush=True)
while True:
    select.select([], [], [], 0.05)  # not `pause`: a signal that comes just before it would be slept over
"""
# A main process with a child, and a grandchild in a session of its own.
FAMILY = """
import os, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
fled = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
print("family", os.getpid(), child.pid, fled.pid, flush=True)
signal.pause()
"""


class Run:
    """A supervisor under test; it reads the output line by line and keeps it."""

    def __init__(self, argv: list[str], folder: Path, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            argv,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.read: list[str] = []

    def until(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Read until `pattern` is found `times` times in unread lines; return the last match."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.read.append(line.rstrip("\n"))
            if match := re.search(pattern, line):
                times -= 1
                if times == 0:
                    return match
        raise AssertionError(f"{pattern!r} never came:\n" + "\n".join(self.read))

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the supervisor; return its exit code once all its output is read."""
        self.process.send_signal(number)
        return self.rest()

    def rest(self) -> int:
        assert self.process.stdout is not None
        self.read += self.process.stdout.read().splitlines()
        return self.process.wait()

    def count(self, text: str) -> int:
        return sum(text in line for line in self.read)


Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Yield a function that writes a Procfile and starts the supervisor on it."""
    runs: list[Run] = []
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "family.py").write_text(FAMILY)

    def started(procfile: str, **options: object) -> Run:
        (tmp_path / "Procfile").write_text(procfile.replace("PYTHON", sys.executable))
        runs.append(Run([sys.executable, "-c", DRIVER, json.dumps(options)], tmp_path))
        return runs[-1]

    yield started
    for run in runs:
        run.process.kill()
        run.rest()
        if run.process.stdout:
            run.process.stdout.close()


def gone(pid: int) -> None:
    """Wait for the end of a process that is no child of this one."""
    try:
        psutil.Process(pid).wait(timeout=60)
    except psutil.NoSuchProcess:
        return


def test_each_process_is_started_scaled_and_its_lines_bear_its_name(start: Start) -> None:
    run = start("# fleets\nweb: PYTHON program.py w\nslow: PYTHON program.py s\n", scale=["slow=2"])
    run.until(r"\| ready", times=3)
    assert run.end() == 0
    assert run.count("web      | ready w") == 1
    assert run.count("slow.1   | ready s") == 1
    assert run.count("slow.2   | ready s") == 1


def test_the_environment_given_reaches_the_processes(start: Start) -> None:
    run = start("web: NAME=$GIVEN-2 printenv GIVEN NAME TIDEGATE_PROCESS\n", env={"GIVEN": "here"})
    run.until(r"\| web$")
    run.end()
    assert run.count("| here-2") >= 1


def test_an_ended_process_is_restarted_after_a_doubling_delay(start: Start) -> None:
    run = start("web: sh -c 'exit 3'\n")
    run.until("starts again", times=5)
    run.end()
    delays = [float(number) for line in run.read for number in re.findall(r"starts again in (\S+) s", line)]
    assert delays[:5] == [0.001, 0.002, 0.004, 0.008, 0.016]
    assert run.count("ended with code 3") >= 5


def test_the_delay_is_reset_after_a_healthy_run(start: Start) -> None:
    run = start("web: sh -c 'exit 3'\n", healthy=0)
    run.until("starts again", times=4)
    run.end()
    assert {line.partition("starts again in ")[2] for line in run.read if "starts again" in line} == {"0.001 s"}


def test_a_killed_process_is_replaced(start: Start) -> None:
    run = start("web: PYTHON program.py\n")
    pid = int(run.until(r"started \(pid (\d+)\)")[1])
    run.until("ready")
    os.kill(pid, signal.SIGKILL)
    run.until("ended by SIGKILL")
    run.until("ready")
    assert run.end() == 0


def test_a_program_that_cannot_be_started_does_not_stop_the_others(start: Start) -> None:
    run = start("bad: ./no-such-program\nweb: PYTHON program.py\n")
    run.until("ended with code 127: its command is not found")
    run.until("started")  # again
    assert run.end() == 0
    assert run.count("| ready") == 1


def test_ctrl_c_reaches_each_program_once_as_sigterm(start: Start) -> None:
    run = start("web: PYTHON program.py\nslow: PYTHON program.py\n")
    run.until("ready", times=2)
    os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does
    assert run.rest() == 130
    assert run.count("heard SIGTERM") == 2
    assert run.count("heard SIGINT") == 0


def test_term_reaches_a_program_behind_a_shell(start: Start) -> None:
    run = start("web: true && PYTHON program.py slow\n")
    run.until("ready")
    assert run.end() == 0
    assert run.count("heard SIGTERM") == 1
    assert run.count("slowly done") == 1  # its shell died at once; it has its stop timeout all the same


def test_a_program_behind_a_shell_that_exceeds_its_stop_timeout_is_killed(start: Start) -> None:
    run = start("web: true && PYTHON program.py stubborn\n", stop={"web": 0.3})
    run.until("ready")
    assert run.end() == 0
    assert run.count("web exceeds its stop timeout") == 1


def test_a_program_that_exceeds_its_stop_timeout_is_killed(start: Start) -> None:
    run = start("web: PYTHON program.py stubborn\nslow: PYTHON program.py\n", stop={"web": 0.3, "slow": 1000})
    run.until("ready", times=2)
    assert run.end() == 0
    assert run.count("web exceeds its stop timeout") == 1
    assert run.count("web ended by SIGKILL") == 1
    assert run.count("slow ended with code 0") == 1


def test_the_second_ctrl_c_kills_at_once(start: Start) -> None:
    run = start("web: PYTHON program.py stubborn\n", stop={"web": 1000})
    run.until("ready")
    run.process.send_signal(signal.SIGINT)
    run.until("heard SIGTERM")
    assert run.end(signal.SIGINT) == 130
    assert run.count("web ended by SIGKILL") == 1


def test_no_process_is_left_even_outside_its_group(start: Start) -> None:
    run = start("web: PYTHON family.py\n")
    family = [int(pid) for pid in run.until(r"family (\d+) (\d+) (\d+)").groups()]
    run.end()
    assert [pid for pid in family if birth_of(pid)] == []


def test_the_children_of_a_killed_main_process_end_before_it_is_replaced(start: Start) -> None:
    run = start("web: PYTHON family.py\n")
    main, child, _ = [int(pid) for pid in run.until(r"family (\d+) (\d+) (\d+)").groups()]
    os.kill(main, signal.SIGKILL)
    run.until("family")
    assert birth_of(child) is None
    run.end()


def test_the_guard_ends_the_processes_of_a_killed_supervisor(start: Start) -> None:
    run = start("web: PYTHON family.py\nslow: PYTHON program.py\n")
    family = [int(pid) for pid in run.until(r"family (\d+) (\d+) (\d+)").groups()]
    marks = {psutil.Process(pid).environ()[MARK] for pid in family}
    assert len(marks) == 1
    run.process.kill()
    for pid in family:
        gone(pid)


def test_honcho_reads_the_same_procfile() -> None:
    procfile = ROOT / "Procfile"
    ours = {kind.name: kind.command for kind in read_procfile(procfile)}
    assert ours == dict(parse_procfile(procfile.read_text(encoding="utf-8")).processes)
    assert {"clock", "fast", "slow", "suspect", "deliver", "ship"} <= set(ours)
