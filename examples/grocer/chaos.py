"""Kills a random worker with SIGKILL every few seconds, as long as it is told to.

It knows nothing of the engine: its victims are whatever a supervisor runs, found through the operating system. The
local services are not among them, nor the supervisor; whoever dies is restarted by the supervisor, as in production.
"""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

import psutil

from engine.local.processes.orphan_guard import MARK

PROCESS_NAME: Final = "TIDEGATE_PROCESS"
"""The supervisor tells each process its name in this variable."""

_PLUMBING: Final = ("resource_tracker", "forkserver")
"""Helpers of Python's multiprocessing: they do no work of ours."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One process that was killed: its pid and the name that the supervisor gave it, e.g. `slow`."""

    pid: int
    name: str


def supervised(supervisor: int) -> list[psutil.Process]:
    """The processes that work below the supervisor of this pid: those that have no child of their own.

    A fleet's main process is spared, for it ends by itself when one of its workers is killed.
    """
    with suppress(psutil.NoSuchProcess):
        below = [child for child in psutil.Process(supervisor).children(recursive=True) if _works(child)]
        parents = {_parent(child) for child in below}
        return sorted((child for child in below if child.pid not in parents), key=lambda child: child.pid)
    return []


def kept(supervisor: int) -> list[psutil.Process]:
    """The children of what the supervisor of this pid started: of `tidegate run`, the process that does everything.

    Its parent only forks it again when it dies, and is spared as that of a fleet is.
    """
    with suppress(psutil.NoSuchProcess):
        parents = [child for child in psutil.Process(supervisor).children() if _works(child)]
        return sorted(
            (child for parent in parents for child in parent.children() if _works(child)), key=lambda child: child.pid
        )
    return []


class Recurring(ABC):
    """A context in which something is done again and again, as `pause` tells how many seconds apart."""

    def __init__(self, name: str) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def pause(self) -> float:
        """Seconds until the next time."""

    @abstractmethod
    def act(self) -> None:
        """Do it once."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self.pause()):
            self.act()


class Killer(Recurring):
    """A context in which one of `victims()`, chosen at random, is killed `every` so often; `kills` tells whom.

    `victims` is asked anew each time. The same `seed` makes the same choices from the same victims.
    """

    def __init__(self, victims: Callable[[], Sequence[psutil.Process]], every: timedelta, *, seed: int = 0) -> None:
        super().__init__("killer")
        self.kills: list[Kill] = []
        self._victims = victims
        self._every = every
        self._draw = random.Random(seed)

    def pause(self) -> float:
        """Always the same."""
        return self._every.total_seconds()

    def act(self) -> None:
        """Kill one."""
        self.strike()

    def strike(self) -> Kill | None:
        """Kill one now; None where nobody is there, or it had just ended."""
        victims = self._victims()
        if not victims:
            return None
        victim = self._draw.choice(victims)
        name = _variable(victim, PROCESS_NAME) or str(victim.pid)
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            return None
        kill = Kill(victim.pid, name)
        self.kills.append(kill)
        return kill


def _works(process: psutil.Process) -> bool:
    """Whether a supervisor runs it, and it is more than plumbing."""
    try:
        command = " ".join(process.cmdline())
        running = process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
    return running and _variable(process, MARK) is not None and not any(word in command for word in _PLUMBING)


def _variable(process: psutil.Process, name: str) -> str | None:
    """A variable of the process's environment at its birth."""
    try:
        return process.environ().get(name)
    except (psutil.Error, OSError):
        return None


def _parent(process: psutil.Process) -> int | None:
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return None
