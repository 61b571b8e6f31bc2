"""Resource usage of an installation's processes, by kind: processor seconds and memory, as the kernel counts them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

WORKERS: Final = ("deliver", "slow", "fast", "suspect", "clock", "feed", "ship")
"""Our own processes, by their names in the Procfile."""
_STORES: Final = {"mongod": "mongod", "valkey-server": "Valkey", "java": "java", "postgres": "postgres"}


@dataclass(slots=True)
class Usage:
    """By kind of process: processor seconds of all of them together, and the memory of the largest (now, peak; MiB)."""

    cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    resident: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    peak: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def total(self) -> float:
        """Processor seconds of all kinds."""
        return sum(self.cpu.values())

    def since(self, before: Usage) -> dict[str, float]:
        """Return processor seconds by kind since `before`, the largest first."""
        spent = {kind: seconds - before.cpu.get(kind, 0.0) for kind, seconds in self.cpu.items()}
        return dict(sorted(spent.items(), key=lambda item: -item[1]))


def kind_of(command: Sequence[str]) -> str:
    """Return the name of a command line in the table: `deliver`, `clock`, `mongod`, `java`, ..."""
    if not command:
        return "gone"
    program = Path(command[0]).name.partition(":")[0]
    if program in _STORES:
        return _STORES[program]
    words = [Path(word).name for word in command]
    if "tidegate" not in words:
        return "guard" if "engine.local.processes.orphan_guard" in words else program
    behind = words[words.index("tidegate") + 1 :]
    kept = [word for word in behind if not word.startswith("-")]
    if kept[:1] == ["worker"] or kept[:2] == ["logs", "ship"]:
        return kept[1]
    return kept[0] if kept else program


def used_by(processes: Iterable[psutil.Process]) -> Usage:
    """Return the usage of `processes` so far; skip those that are gone."""
    usage = Usage()
    for process in processes:
        with suppress(psutil.Error, OSError):
            kind = kind_of(process.cmdline())
            times, resident, peak = process.cpu_times(), process.memory_info().rss / 2**20, _peak(process.pid)
            usage.cpu[kind] += times.user + times.system
            usage.resident[kind] = max(usage.resident[kind], resident)
            usage.peak[kind] = max(usage.peak[kind], peak)
    return usage


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all its running descendants."""
    own = psutil.Process(pid)
    return [own, *own.children(recursive=True)]


def per_mail(spent: Mapping[str, float], mails: int) -> dict[str, float]:
    """Return microseconds a mail by kind, without those below half a microsecond."""
    each = {kind: seconds / max(1, mails) * 1e6 for kind, seconds in spent.items()}
    return {kind: cost for kind, cost in each.items() if cost >= 0.5}


def _peak(pid: int) -> float:
    """Return the peak MiB of a process since it began."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0
