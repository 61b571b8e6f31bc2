"""How long quick campaigns' slices wait while a slow campaign floods its lane, and small ones beside a huge one."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.e2e_cases import QUICK, crowd, ground, percentile
from bench.installation import Installation, audience
from bench.log_events import log_events

QUICK_CAMPAIGNS: Final = 40
"""Continuous campaigns in the fast lane, each with due users every three seconds."""
MEMBERS: Final = 5
"""Users of each of them."""
STEPS: Final = 60
"""Messages of each of them, three seconds apart: more than the seconds that they are measured."""
MEASURED: Final = 60.0
"""Seconds for which the slices are measured before the flood, and at most during it."""
SETTLED: Final = 10.0
"""Seconds after the last launch that are not measured."""
FLOOD: Final = 100_000
"""Users of the flood: 500 slices of one batch."""
FLOOD_SLICE: Final = 200
_FLOOD: Final = "flood"

SMALL: Final = 50
SMALL_USERS: Final = 100
TURN: Final = 1.0
"""Seconds that a thread may go on deciding for another campaign before it takes a new slice."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Waits (s) of the quick campaigns' slices, from the plan of their run to their claim, before and in the flood."""

    before: list[float]
    during: list[float]


def flooded(how: str, *, by: str = "up", apart: bool = True) -> Waits:
    """Measure quick campaigns before and while a flood of 500 slices goes on, each 200 ms of `how` (`wait`, `spin`).

    With `apart` false all share one queue, first in, first out.
    """
    failpoints = f"slice.decided={how}200@*~/{_FLOOD}-"
    with ground(QUICK, elastic=False, failpoints=failpoints, by=by) as (installation, _):
        installation.edit("policies/profiles/bulk.yaml", "slice_users: 20000", f"slice_users: {FLOOD_SLICE}")
        installation.edit("policies/profiles/bulk.yaml", "candidates: [1000, 5000]", f"candidates: [{FLOOD_SLICE}]")
        if not apart:
            _one_queue(installation)
        installation.fill(0, QUICK_CAMPAIGNS, MEMBERS)
        installation.fill_workspace(_FLOOD, FLOOD)
        installation.wait_until_quiet(60)
        names = [audience(number) for number in range(QUICK_CAMPAIGNS)]
        for name in names:
            audience_of = f"{{all: [{{segment: {name}}}]}}"
            installation.apply_plain(
                name, audience=audience_of, kind="continuous", holdout="0%", messages=STEPS, apart="3s"
            )
        installation.apply_plain(_FLOOD, _FLOOD)
        for name in names:
            installation.run("campaign", "launch", name)
        time.sleep(SETTLED)
        began = time.time()
        time.sleep(MEASURED)
        middle = time.time()
        installation.run("campaign", "launch", _FLOOD, "--path", "scan")
        over = _over(installation)
        return Waits(_waits(installation, began, middle), _waits(installation, middle + 1, over))


def _one_queue(installation: Installation) -> None:
    """Let the flood travel in the fast lane, and enqueue all of its slices at once."""
    installation.edit("policies/profiles/bulk.yaml", "lane: slow", "lane: fast")
    installation.edit("policies/profiles/bulk.yaml", "in_flight: 4 ", "in_flight: 1000 ")
    installation.edit("policies/lanes.yaml", "time_limit: 60s, depth: 4}", "time_limit: 60s, depth: 1000}")


def _over(installation: Installation) -> float:
    """Wait until the flood is decided, at most `MEASURED`; return that moment."""
    deadline = time.monotonic() + MEASURED
    while time.monotonic() < deadline:
        for _, at, line in log_events(installation, "run.decided"):
            if line["labels"]["campaign"] == _FLOOD:
                return at
        time.sleep(2)
    return time.time()


def _waits(installation: Installation, since: float, until: float) -> list[float]:
    """Return the waits of the quick campaigns' slices whose runs were planned in an interval."""
    planned: dict[str, float] = {}
    claimed: dict[str, tuple[str, float]] = {}
    for event, at, line in log_events(installation, "run.planned", "slice.claimed"):
        labels = line["labels"]
        if labels["campaign"] == _FLOOD or "run" not in labels:
            continue
        if event == "run.planned":
            planned[labels["run"]] = min(at, planned.get(labels["run"], at))
        elif labels["slice"] not in claimed or at < claimed[labels["slice"]][1]:
            claimed[labels["slice"]] = (labels["run"], at)
    return [
        max(0.0, at - planned[run]) for run, at in claimed.values() if run in planned and since <= planned[run] < until
    ]


_FLOOD_HEAD: Final = (
    "| run by | flood | lanes | slices before, during | wait p50, p95, p99 before (ms) | during the flood (ms) "
    "| p99, times |\n|---|---|---|--:|--:|--:|--:|"
)


def flood(_: int, rounds: int) -> str:
    """Return the table of the floods."""
    rows = [_FLOOD_HEAD]
    cases = (("wait", "up", True), ("spin", "up", True), ("wait", "run", True), ("wait", "up", False))
    for how, by, apart in cases:
        for _round in range(rounds):
            waits = flooded(how, by=by, apart=apart)
            before, during = _quantiles(waits.before), _quantiles(waits.during)
            print(how, by, apart, before, during, file=sys.stderr, flush=True)
            rows.append(
                f"| `tidegate {by}` | {'waits' if how == 'wait' else 'computes'} "
                f"| {'as `init` writes them' if apart else 'one queue'} "
                f"| {len(waits.before):,}, {len(waits.during):,} | {_shown(before)} | {_shown(during)} "
                f"| {during[-1] / before[-1]:.1f} |"
            )
    return "\n".join(rows)


def _quantiles(waits: Sequence[float]) -> list[float]:
    return [percentile(waits, share) * 1000 for share in (0.5, 0.95, 0.99)]


def _shown(quantiles: Sequence[float]) -> str:
    return ", ".join(f"{one:.0f}" for one in quantiles)


def alone(users: int) -> list[float]:
    """Launch the small campaigns among as many other users, without the big one; return the seconds of each.

    They lie between its launch and its last mail. A small campaign looks for its users among all users, which costs
    more the more there are.
    """
    with ground(QUICK) as (installation, server):
        installation.fill(users, SMALL, SMALL_USERS)
        names = [audience(number) for number in range(SMALL)]
        for name in names:
            installation.apply(name, name)
        installation.wait_until_quiet(30)
        launched = {}
        for name in names:
            launched[name] = time.time()
            installation.run("campaign", "launch", name)
        deadline = time.monotonic() + MEASURED
        while server.now()["recipients"] < SMALL * SMALL_USERS and time.monotonic() < deadline:
            time.sleep(0.25)
        groups = server.now()["groups"]
    return [groups[f"{name}.example"][2] - began for name, began in launched.items()]


def beside(users: int, rounds: int) -> str:
    """Return the table of small campaigns, alone and beside one to three times `users`."""
    users *= 3
    columns = ("small campaigns", "launch to last mail p50, p95 (s)", "fair share: twice alone, and a turn (s)")
    rows = [f"| among {users:,} users, beside | {' | '.join(columns)} |", "|---|--:|--:|--:|"]
    by_themselves = [second for _ in range(rounds) for second in alone(users)]
    among = [second for _ in range(rounds) for second in crowd(users, SMALL, SMALL_USERS).small]
    fair = 2 * percentile(by_themselves, 0.95) + TURN
    for name, seconds, bound in (
        ("nothing", by_themselves, ""),
        (f"a campaign to {users:,}, by shares", among, f"{fair:.2f}"),
    ):
        print(name, sorted(seconds), file=sys.stderr, flush=True)
        rows.append(
            f"| {name} | {len(seconds)} | {statistics.median(seconds):.2f}, {percentile(seconds, 0.95):.2f} | {bound} |"
        )
    return "\n".join(rows)
