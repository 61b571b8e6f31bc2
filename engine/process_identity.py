"""Identify a process by its pid *and* its birth, on one machine.

A pid alone is no identity: after a crash or a reboot it may belong to an unrelated process. `Born` adds the moment of
birth, so that leftovers of a killed run are recognised and unrelated processes are left alone.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE: Final = Path("/proc/self/ns/pid")


@dataclass(frozen=True, slots=True)
class Born:
    """A process, permanently identified by its pid and birth (clock ticks after a given boot; elsewhere, seconds)."""

    pid: int
    birth: str

    @property
    def alive(self) -> bool:
        """Whether this very process still runs; a process that has ended but was not yet waited for does not."""
        return birth_of(self.pid) == self.birth


def birth_of(pid: int) -> str | None:
    """Return when process `pid` was born; None if there is no such process or it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None if _BOOT_ID.exists() else _birth_elsewhere(pid)
    fields = stat.rpartition(")")[2].split()  # the name may contain spaces and brackets
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def _birth_elsewhere(pid: int) -> str | None:
    """Do the same on a system without /proc."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None


def myself() -> Born:
    """Return the calling process. It never raises `ProcessLookupError`, because this process runs."""
    return Born(os.getpid(), birth_of(os.getpid()) or "")


def here() -> str:
    """Return where a pid is valid: the machine's name and, in a container, the container's pid namespace."""
    try:
        numbering = str(_PID_NAMESPACE.readlink())
    except OSError:  # no /proc: one pid namespace per machine
        numbering = ""
    return f"{socket.gethostname()}/{numbering}"
