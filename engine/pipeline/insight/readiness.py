"""Whether this process can serve: the answers of `/livez` and `/readyz?verbose`, as Kubernetes prints its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final

PATIENCE: Final = 2.0
"""Seconds that a check gets: a kubelet gives up after one or a few."""

OK: Final = 200
UNAVAILABLE: Final = 503


@dataclass(frozen=True, slots=True)
class Check:
    """One check by name; a process whose `needed` check fails is not ready."""

    name: str
    passed: bool
    needed: bool = True


class Readiness:
    """Runs the probes of this process's stores, all at once. A probe raises if its store is not ready."""

    def __init__(self, probes: Mapping[str, Callable[[], object]], needed: Collection[str]) -> None:
        self._probes = probes
        self._needed = needed

    def checks(self) -> list[Check]:
        """Return the checks in the order of the probes; a probe without an answer in `PATIENCE` has failed."""
        pool = ThreadPoolExecutor(max(1, len(self._probes)), thread_name_prefix="readiness")
        running = {name: pool.submit(probe) for name, probe in self._probes.items()}
        done, _ = wait(running.values(), PATIENCE)
        pool.shutdown(wait=False)  # a probe that hangs ends by its client's own limit
        return [
            Check(name, future in done and future.exception() is None, name in self._needed)
            for name, future in running.items()
        ]

    def up(self) -> dict[str, bool]:
        """Return which probes answer."""
        return {check.name: check.passed for check in self.checks()}


def livez(*, verbose: bool = False) -> tuple[int, str]:
    """Return status and text of `/livez`: the process answers, so it lives. No store is asked: a restart mends none."""
    return answer("livez", [Check("ping", passed=True)], verbose=verbose)


def answer(name: str, checks: Sequence[Check], *, verbose: bool = False) -> tuple[int, str]:
    """Return the status and the text for checks: each by name if somebody asks or one fails, else only `ok`.

    The reasons of a failure stay inside: who may not log in may ask this.
    """
    ready = all(check.passed for check in checks if check.needed)
    if ready and not verbose:
        return OK, "ok"
    lines = [_line(check) for check in checks]
    return (OK if ready else UNAVAILABLE), "\n".join([*lines, f"{name} check {'passed' if ready else 'failed'}", ""])


def _line(check: Check) -> str:
    if check.passed:
        return f"[+]{check.name} ok"
    return f"[-]{check.name} failed: it does not answer" + ("" if check.needed else " (not needed to serve)")
