"""Processes that outlive the call that started them: identified by pid *and* start time, ended by group.

Every process here leads its own session, so ending its group also ends its children.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import psutil

from engine.process_identity import birth_of

POLL: Final = timedelta(milliseconds=10)  # the system sends no event when a group is empty, so we poll


@dataclass(frozen=True, slots=True)
class Command:
    """A command: arguments, variables added to the environment, and the user (None: the current one).

    `niceness` (0 to 19) lowers its priority on busy processors.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    user: str | None = None
    niceness: int = 0


def spawn(command: Command, *, log: Path, cwd: Path) -> subprocess.Popen[bytes]:
    """Start `command` in a new session, without input, and append its output to `log`.

    Raises `OSError` if it cannot be executed.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            command.argv,
            cwd=cwd,
            env={**os.environ, **command.env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=command.user,
            group=group_of(command.user),
            extra_groups=[] if command.user else None,
        )
    if command.niceness:
        with suppress(OSError):  # it has ended already
            os.setpriority(os.PRIO_PROCESS, child.pid, command.niceness)  # its children inherit it
    return child


def group_of(user: str | None) -> int | None:
    """Return the primary group of `user`; None for None."""
    if user is None:
        return None
    import pwd  # absent on some platforms

    return pwd.getpwnam(user).pw_gid


def members(group: int) -> list[int]:
    """Return the pids of a process group that still run."""
    pids = []
    for pid in psutil.pids():
        try:
            if os.getpgid(pid) == group and birth_of(pid) is not None:
                pids.append(pid)
        except (ProcessLookupError, PermissionError):
            continue
    return pids


def marked_groups(name: str, value: str) -> list[int]:
    """Return the process groups in which a process started with `name` set to `value` in its environment; not our own.

    This finds processes that a run started but died before recording. It skips processes of other users, whose
    environment cannot be read.
    """
    groups = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value and birth_of(process.pid) is not None:
                groups.add(os.getpgid(process.pid))
        except (psutil.Error, OSError):
            continue
    return sorted(groups - {os.getpgid(0)})


def end_groups(groups: Sequence[int], *, patience: timedelta) -> None:
    """End process groups: TERM, up to `patience` for all of them together, then KILL; return when none runs.

    A group's number is the pid of its leader. With no patience, KILL at once.
    """
    if patience > timedelta(0):
        _signal_all(groups, signal.SIGTERM)
        if _gone_within(groups, patience):
            return
    _signal_all(groups, signal.SIGKILL)
    _gone_within(groups, timedelta(seconds=10))


def _signal_all(groups: Sequence[int], number: signal.Signals) -> None:
    for group in groups:
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):  # gone; or only a zombie is left, on some systems
            continue


def _gone_within(groups: Sequence[int], patience: timedelta) -> bool:
    deadline = time.monotonic() + patience.total_seconds()
    left = list(groups)
    while left := [group for group in left if members(group)]:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL.total_seconds())
    return True
