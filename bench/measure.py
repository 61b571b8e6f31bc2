"""Measures ways side by side, in turns, with clocks and counters that are not our own.

Time is wall-clock time. Processor time comes from the kernel (psutil). Commands and documents examined come from
mongod's `serverStatus`. Nothing comes from the engine's own counters.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil
from pymongo.database import Database


class Way(Protocol):
    """One way of making a full pass over some users."""

    name: str
    """Its name in the table."""

    users: int
    """Users that one pass reads."""

    def prepare(self) -> None:
        """Restore the state before a pass; not measured."""

    def run(self) -> int:
        """Make one pass; return the number of users that matched and were written."""

    def finish(self) -> None:
        """End work that ran beside the pass (default: none); not measured."""

    def processes(self) -> Sequence[psutil.Process]:
        """Return the processes that do this work, without mongod (default: this one)."""
        return [psutil.Process()]

    def entered(self) -> set[str]:
        """Return the keys of the users that the last pass has written, to compare the ways' results."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One pass: wall-clock seconds, processor seconds of the way's processes and of mongod, mongod's counters."""

    users: int
    matched: int
    seconds: float
    own_cpu: float
    mongod_cpu: float
    commands: int
    examined: int


@dataclass(slots=True)
class Rounds:
    """All passes of one way."""

    name: str
    passes: list[Measured] = field(default_factory=list)

    def rate(self) -> float:
        """Return the median of users per second."""
        return statistics.median(measured.users / measured.seconds for measured in self.passes)

    def spread(self) -> tuple[float, float]:
        """Return the users per second of the slowest and the fastest pass."""
        rates = [measured.users / measured.seconds for measured in self.passes]
        return min(rates), max(rates)

    def per_user(self, what: str) -> float:
        """Return the median over the passes of a counter or of processor seconds, per user."""
        return statistics.median(float(getattr(measured, what)) / measured.users for measured in self.passes)


def side_by_side(database: Database[dict[str, Any]], ways: Sequence[Way], rounds: int) -> list[Rounds]:
    """Run each way once to warm up, then `rounds` times in turns, so that a slow minute affects all ways.

    Raises `AssertionError` if a way finds another number of matches than in its own first pass.
    """
    results = [Rounds(way.name) for way in ways]
    expected = [measure(database, way).matched for way in ways]
    for _ in range(rounds):
        for way, result, matched in zip(ways, results, expected, strict=True):
            measured = measure(database, way)
            assert measured.matched == matched, f"{way.name}: {measured.matched} matched, {matched} at first"
            result.passes.append(measured)
    return results


def measure(database: Database[dict[str, Any]], way: Way) -> Measured:
    """Prepare and measure one pass of `way`."""
    way.prepare()
    server = psutil.Process(int(database.command("serverStatus")["pid"]))
    processes = list(way.processes())
    own, mongod = _cpu(processes), _cpu([server])
    commands, examined = counters(database)
    began = time.perf_counter()
    matched = way.run()
    seconds = time.perf_counter() - began
    after_commands, after_examined = counters(database)
    own, mongod = _cpu(processes) - own, _cpu([server]) - mongod
    way.finish()
    return Measured(
        users=way.users,
        matched=matched,
        seconds=seconds,
        own_cpu=own,
        mongod_cpu=mongod,
        commands=after_commands - commands,
        examined=after_examined - examined,
    )


def _cpu(processes: Sequence[psutil.Process]) -> float:
    """Return the processor seconds that `processes` and the children they have waited for have used."""
    return sum(sum(process.cpu_times()[:4]) for process in processes)


def counters(database: Database[dict[str, Any]]) -> tuple[int, int]:
    """Return the commands that mongod has run (its own monitoring included) and the documents it has examined."""
    metrics: Mapping[str, Any] = database.command("serverStatus")["metrics"]
    commands = sum(
        int(metric["total"])
        for name, metric in metrics["commands"].items()
        if isinstance(metric, dict) and name != "<UNKNOWN>"
    )
    return commands, int(metrics["queryExecutor"]["scannedObjects"])


def machine(mongodb: str, load: float) -> str:
    """Return this machine and the relevant versions as text; `load` is the load average before the bench began."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = psutil.virtual_memory().total / 2**30
    system = f"Linux {platform.release()}, Python {platform.python_version()}, MongoDB {mongodb}"
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB; {system}; load average {load:.1f} before it began"
