"""P13: a campaign turns slow. How long do the slices of others wait for the fast lane until it has left?

Twenty small continuous campaigns have due work on the fast lane. At a moment another continuous campaign is launched
there whose batches take 200 ms more. The log lines give the wait of every slice of the small ones, from the plan of its
run to its claim, and the moment at which the slow one moves to its slow lane.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil
from typing import Final

from bench.e2e_cases import QUICK, ground
from bench.installation import Installation, audience
from bench.log_events import log_events

SMALL: Final = 20
"""Small campaigns on the fast lane."""
EACH: Final = 50
"""Users of each: one batch of a due run."""
MESSAGES: Final = 50
"""Messages of each series, 4 s apart: work for more than 200 s. Hardly any mail goes out: 99 % are in the holdout."""

SLOW: Final = "turning"
"""Name and workspace of the campaign that is slow, and the first letters of its users."""
USERS: Final = 100_000
"""Its users: work for about a minute even of four threads."""
WAIT: Final = 200
"""Milliseconds that each of its batches waits."""

SETTLING: Final = 10.0
"""Seconds after the launches of the small campaigns that do not count."""
BEFORE: Final = 15.0
"""Seconds of waits before it is launched."""
AFTER: Final = 36.0
"""Seconds of waits from its first batch on."""
STEP: Final = 4.0
"""Seconds of one step of the table: its waits are judged together. A cycle of the small campaigns is as long."""
CALM: Final = 3
"""Steps in a row that must be normal."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run it: what the table calls it, the batch sizes of the slow campaign, and whether it is judged.

    `shipped` leaves the access path to the planner; otherwise the campaign reads MongoDB in batches of just that size.
    """

    name: str
    batches: Sequence[int]
    judged: bool
    shipped: bool = False


WAYS: Final = (
    Way("`slow_when` as shipped, batches of 100 users", (100,), judged=True),
    Way("without `slow_when`, batches of 100 users", (100,), judged=False),
    Way("`slow_when` as shipped, batches as shipped", (500, 1_000, 5_000), judged=True, shipped=True),
)


@dataclass(frozen=True, slots=True)
class Turned:
    """What a slow campaign did to the waits of the others; seconds count from its first batch.

    `before` are waits (s) in the seconds before it, `steps` those of each `STEP` after it. `moved` says when it left
    for its slow lane (None: never), `last` when it last claimed a slice on the fast fleet. `normal` says when the
    others' waits were as before again (None: not while the bench looked): the beginning of `CALM` steps in a row whose
    median is normal. A 95th percentile of some twenty waits is one wait, and other work on the machine makes one.
    """

    before: Sequence[float]
    steps: Sequence[Sequence[float]]
    moved: float | None
    last: float
    normal: float | None


def p95(values: Sequence[float]) -> float:
    """Return the 95th percentile (nearest rank); 0 of nothing."""
    return sorted(values)[ceil(0.95 * len(values)) - 1] if values else 0.0


def bound_of(before: Sequence[float]) -> float:
    """Return the longest normal median (s): 1.2 times that of before, or 50 ms more than it."""
    median = statistics.median(before)
    return max(1.2 * median, median + 0.05)


def normal_from(steps: Sequence[Sequence[float]], bound: float) -> float | None:
    """Return after how many seconds `CALM` steps in a row begin whose medians are within `bound`; None if none do."""
    calm = [not step or statistics.median(step) <= bound for step in steps]
    for first in range(len(calm) - CALM + 1):
        if all(calm[first : first + CALM]):
            return first * STEP
    return None


def turned(way: Way) -> Turned:
    """Run the small campaigns, launch the slow one, and read the log lines."""
    failpoints = f"slice.decided=wait{WAIT}@*~/{SLOW}-"
    with ground(QUICK, elastic=False, failpoints=failpoints) as (installation, _):
        _write_profile(installation, way)
        installation.fill(0, SMALL, EACH)
        installation.fill_workspace(SLOW, USERS)
        names = [audience(number) for number in range(SMALL)]
        for name in names:
            audience_of = f"{{all: [{{segment: {name}}}]}}"
            installation.apply_plain(name, audience=audience_of, kind="continuous", messages=MESSAGES, apart="4s")
        installation.apply_plain(SLOW, SLOW, kind="continuous", profile=SLOW)
        installation.wait_until_quiet(60)
        for name in names:
            installation.run("campaign", "launch", name)
        time.sleep(SETTLING + BEFORE)
        path = () if way.shipped else ("--path", "scan")  # the cached scan reads more users at once than `batch` says
        installation.run("campaign", "launch", SLOW, *path)
        time.sleep(AFTER + 5)
        return _read(installation)


def _write_profile(installation: Installation, way: Way) -> None:
    """Give the slow campaign the shipped profile of its kind under another name, with the batches of this way."""
    shipped = (installation.folder / "policies/profiles/lifecycle.yaml").read_text(encoding="utf-8")
    kept = [line for line in shipped.splitlines() if line and not line.startswith(("#", "matches", "priority"))]
    replaced = {"profile:": f"profile: {SLOW}", "batch:": f"batch: {{candidates: {list(way.batches)}}}"}
    lines = [next((new for key, new in replaced.items() if line.startswith(key)), line) for line in kept]
    if not way.judged:
        lines = [line for line in lines if not line.startswith("slow_when:")]
    (installation.folder / f"policies/profiles/{SLOW}.yaml").write_text("\n".join([*lines, ""]), encoding="utf-8")
    installation.run("policy", "check")


def _read(installation: Installation) -> Turned:
    planned: dict[str, float] = {}
    claimed: dict[str, tuple[str, float]] = {}
    began, last, moved = float("inf"), 0.0, None
    names = ("run.planned", "slice.claimed", "campaign.slowed", "batch.decided")
    for event, at, line in log_events(installation, *names):
        labels, process = line["labels"], line["process"]["name"]
        slow = labels["campaign"] == SLOW
        if event == "run.planned" and not slow:
            planned[labels["run"]] = at
        elif event == "slice.claimed" and slow and "/deliver/" not in labels["slice"]:
            began = min(began, at)
            last = max(last, at) if process == "fast" else last
        elif event == "slice.claimed" and "run" in labels:
            first = claimed.get(labels["slice"])
            claimed[labels["slice"]] = (labels["run"], at if first is None else min(at, first[1]))
        elif event == "campaign.slowed" and slow:
            moved = at
    waits = [(planned[run], at - planned[run]) for run, at in claimed.values() if run in planned]
    before = [wait for at, wait in waits if began - BEFORE <= at < began]
    steps: list[list[float]] = [[] for _ in range(int(AFTER / STEP))]
    for at, wait in waits:
        step = int((at - began) // STEP)
        if 0 <= step < len(steps):
            steps[step].append(wait)
    left = None if moved is None else moved - began
    return Turned(before, steps, left, last - began, normal_from(steps, bound_of(before)))


_HEAD: Final = (
    "| way | waits before: median, p95 | median, p95 of the first 8 s | it is moved after "
    "| its last claim on the fast fleet | waits are normal again after | median, p95 of the last 20 s |\n"
    "|---|--:|--:|--:|--:|--:|--:|"
)


def slow_campaign(_: int, rounds: int) -> str:
    """Return the table of all ways, and the waits of each step of the first way."""
    rows = [_HEAD]
    shown: list[str] = []
    for way in WAYS:
        for _round in range(rounds):
            result = turned(way)
            print(way.name, result, file=sys.stderr, flush=True)
            early, late = (list(chain(*part)) for part in (result.steps[:2], result.steps[-5:]))
            normal = _seconds(result.normal, f"not within {AFTER:.0f} s")
            rows.append(
                f"| {way.name} | {_both(result.before)} | {_both(early)} "
                f"| {_seconds(result.moved, 'never')} | {result.last:.1f} s | {normal} "
                f"| {_both(late)} |"
            )
            medians = [statistics.median(step) * 1e3 if step else 0.0 for step in result.steps]
            shown.append(f"{way.name}: {', '.join(f'{median:,.0f}' for median in medians)}")
    rule = f"Normal: the median of the waits of {STEP:.0f} s is at most 1.2 times that of before, or 50 ms more"
    return (
        "\n".join(rows)
        + f"\n\n{rule}. Medians (ms) of each {STEP:.0f} s from the first slow batch on: {'; '.join(shown)}."
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f} ms"


def _both(waits: Sequence[float]) -> str:
    """Return median and 95th percentile of waits."""
    return f"{_ms(statistics.median(waits))}, {_ms(p95(waits))}" if waits else "no wait"


def _seconds(value: float | None, none: str) -> str:
    return none if value is None else f"{value:.1f} s"
