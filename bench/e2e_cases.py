"""The cases of `bench.e2e`: each starts an installation, launches campaigns, and returns the results."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from bench.calibration import calibrate
from bench.installation import BIG, Installation, audience
from bench.processes import Usage
from bench.sink_process import Sink, sink

_LOOK: Final = 0.25
"""Seconds between two polls of the sink."""
_SLOWEST: Final = 15.0
"""Mails a second below which a launch is given up."""
_LOG_PATIENCE: Final = 120.0
"""Longest wait after the last mail until everything is quiet, in seconds."""


@dataclass(frozen=True, slots=True)
class Manner:
    """Behaviour of a case's sink: `flags` of `bench.sink`, and the mean seconds that it takes for a mail.

    `late` is the delay of each answer in milliseconds.
    """

    name: str
    flags: tuple[str, ...] = ()
    late: float = 0.0
    mean: float = 0.0


QUICK: Final = Manner("answers at once")
LATE: Final = Manner("100 ms late", (), 100, 0.1)
HANGING: Final = Manner(
    "100 ms late, one answer in 100 after 20 s, one connection in 10 silent for 30 s",
    ("--slow-each", "100", "--slow-by", "20", "--hang-each", "10", "--hang-for", "30"),
    100,
    0.99 * 0.1 + 0.01 * 20,
)
TEN: Final = Manner("10 ms late", (), 10, 0.01)


@dataclass(slots=True)
class Launched:
    """One launch: seconds to the first and last mail, counts at the sink, processor seconds and memory.

    `small` holds the seconds of each small campaign launched while the big one went out; `after` counts the small ones
    launched later. `longest_ended` is the end of the longest time without a mail, in seconds since the launch.
    """

    users: int
    first: float
    last: float
    longest: float
    missing: int
    unexpected: int
    doubled: int
    spent: dict[str, float]
    quiet: float
    sink: float
    memory: dict[str, tuple[float, float]]
    searchable: bool | None
    calib: float
    load: float
    imported: float = 0.0
    small: list[float] = field(default_factory=list)
    after: int = 0
    longest_ended: float = 0.0

    @property
    def rate(self) -> float:
        """Mails a second from the launch to the last mail."""
        return (self.users - self.missing) / self.last if self.last > 0 else 0.0

    @property
    def cost(self) -> float:
        """Processor microseconds a mail of all processes and stores, until everything is quiet."""
        return sum(self.spent.values()) / max(1, self.users) * 1e6


@contextmanager
def ground(manner: Manner, **options: Any) -> Iterator[tuple[Installation, Sink]]:
    """Start a sink and an installation of its own; remove the folder afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-e2e-"))
    folder.chmod(0o755)
    try:
        with sink(manner.late, *manner.flags) as server:
            installation = Installation(folder / "run", server.port, **options)
            with installation.running():
                yield installation, server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def whole(users: int, manner: Manner = QUICK, *, elastic: bool = True, processes: int = 1) -> Launched:
    """Launch one campaign to everybody; return its measurements."""
    calib, load = calibrate(), os.getloadavg()[0]
    with ground(manner, elastic=elastic, processes=processes) as (installation, server):
        imported = installation.fill(users)
        installation.apply(BIG, BIG)
        installation.wait_until_quiet(30)
        watch = _Watch(installation, server)
        installation.run("campaign", "launch", BIG)
        watch.until(users)
        return watch.measured(users, calib, load, imported=imported)


def crowd(users: int, small: int = 50, each: int = 100) -> Launched:
    """Launch a campaign to `users`, and, while it goes out, `small` campaigns to `each` users of their own."""
    calib, load = calibrate(), os.getloadavg()[0]
    with ground(QUICK) as (installation, server):
        imported = installation.fill(users, small, each)
        names = [audience(number) for number in range(small)]
        for name in (BIG, *names):
            installation.apply(name, name)
        installation.wait_until_quiet(30)
        watch = _Watch(installation, server)
        installation.run("campaign", "launch", BIG)
        watch.until(1)
        launched = {}
        for name in names:
            launched[name] = time.time()
            installation.run("campaign", "launch", name)
        watch.until(users + small * each)
        result = watch.measured(users + small * each, calib, load, imported=imported)
    groups = watch.last["groups"]
    over = groups[f"{BIG}.example"][2]
    result.small = [groups[f"{name}.example"][2] - began for name, began in launched.items() if began < over]
    result.after = len(launched) - len(result.small)
    return result


class _Watch:
    """Watches a launch from before its start until everything is quiet."""

    def __init__(self, installation: Installation, server: Sink) -> None:
        self._installation, self._server = installation, server
        self._before: Usage = installation.usage()
        self._sink = _processor_of(server.pid)
        self._began = time.time()
        self.last: dict[str, Any] = server.now()

    def until(self, mails: int) -> None:
        """Wait until `mails` recipients have a mail, or until the deadline for the slowest acceptable rate."""
        deadline = self._began + max(300.0, mails / _SLOWEST)
        while self.last["recipients"] < mails and time.time() < deadline:
            time.sleep(_LOOK)
            self.last = self._server.now()

    def measured(self, users: int, calib: float, load: float, *, imported: float) -> Launched:
        """Wait until everything is quiet, and return all measurements."""
        sink_spent = _processor_of(self._server.pid) - self._sink
        after = self._installation.wait_until_quiet(_LOG_PATIENCE)
        quiet = time.time() - self._began
        self.last = self._server.now()
        compared = self._server.compared(self._installation.addresses)
        groups = self.last["groups"].values()
        return Launched(
            users=users,
            first=min((group[1] for group in groups), default=self._began) - self._began,
            last=max((group[2] for group in groups), default=self._began) - self._began,
            longest=self.last["longest"],
            longest_ended=self.last["longest_ended"] - self._began,
            missing=compared["missing"],
            unexpected=compared["unexpected"],
            doubled=self.last["repeated"],
            spent=after.since(self._before),
            quiet=quiet,
            sink=sink_spent,
            memory={kind: (self._before.resident[kind], peak) for kind, peak in after.peak.items()},
            searchable=self._searchable() if self._installation.elastic else None,
            calib=calib,
            load=load,
            imported=imported,
        )

    def _searchable(self) -> bool:
        """Return whether the log search finds the line of the last mail."""
        user = self.last["latest"].partition("@")[0]
        return bool(user) and bool(self._installation.log_lines(f"user:{user} event:delivery.sent"))


def _processor_of(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of `values` that at least `share` of them do not exceed.

    Raises `ValueError` if there are none.
    """
    if not values:
        raise ValueError("no values, no percentile")
    place = math.ceil(share * len(values) - 1e-9)
    return sorted(values)[max(0, place - 1)]
