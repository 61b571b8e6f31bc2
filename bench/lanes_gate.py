"""The company's own users while a campaign goes out: their latency on the same MongoDB, with the gate and without."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.e2e_cases import QUICK, ground
from bench.installation import BIG, Installation
from bench.log_events import log_events
from bench.sink_process import Sink
from engine.decisions.slow_and_failing import percentile

MONGOD_CORE: Final = 0
"""The core of mongod and of the company's users; everything else runs on the other one."""
OTHER_CORE: Final = 1
RATE: Final = 200.0
"""Operations of the company's users a second."""
AT_REST: Final = 30.0
"""Seconds for which they are measured beside a load of the processors alone."""
PIECE: Final = 0.002
"""Seconds for which the load of mongod's core computes without a rest: about a call of bulk work under the gate."""
LATENCY: Final = "4ms"
"""The gate's `latency` with the gate on: about twice the p95 of the probe at rest on the machine of the figures."""
_PATIENCE: Final = 1_800.0


@dataclass(frozen=True, slots=True)
class Noticed:
    """What the company's users noticed: p50, p95 and p99 (ms) of their operations, and how many there were."""

    p50: float
    p95: float
    p99: float
    operations: int


@dataclass(frozen=True, slots=True)
class Campaign:
    """One launch: what the users noticed beside it, and beside loads of the processors without MongoDB.

    `rest` is beside a load of the other core only, `equal` beside one of both cores, as large as the campaign's;
    `mongod` is the part of its core that mongod spent on the campaign.
    """

    rest: Noticed
    during: Noticed
    equal: Noticed
    mongod: float
    mails: float
    missing: int
    doubled: int
    limits: int


@contextmanager
def foreground(url: str) -> Iterator[list[Noticed]]:
    """Run the users' load during the block; the list holds what they noticed once it is over."""
    noticed: list[Noticed] = []
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.foreground", url, "--rate", str(RATE), "--seconds", str(_PATIENCE)],
        cwd=Path(__file__).resolve().parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.sched_setaffinity(process.pid, {MONGOD_CORE})
    try:
        yield noticed
    finally:
        output, _ = process.communicate(timeout=60)
        latencies = json.loads(output)
        both = latencies["read"] + latencies["write"]
        noticed.append(Noticed(*(percentile(both, share) for share in (0.5, 0.95, 0.99)), len(both)))


_BURN: Final = (
    "import sys, time\npiece, share = map(float, sys.argv[1:])\nwhile True:\n    began = time.perf_counter()\n"
    "    while time.perf_counter() - began < piece: pass\n    time.sleep(piece / share - piece)"
)


@contextmanager
def busy(share: float = 0.0, threads: int = 2) -> Iterator[None]:
    """Load the other core during the block, as the workers do, and `share` (0 to 1) of mongod's, without MongoDB."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(threads)]
    for process in processes:
        os.sched_setaffinity(process.pid, {OTHER_CORE})
    if share > 0:
        processes.append(subprocess.Popen([sys.executable, "-c", _BURN, str(PIECE), str(min(share, 1.0))]))
        os.sched_setaffinity(processes[-1].pid, {MONGOD_CORE})
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def launched(users: int, *, gated: bool) -> Campaign:
    """Launch a campaign beside the company's users, mongod and they on one core and everything else on the other."""
    with ground(QUICK, elastic=False) as (installation, server):
        lanes = installation.folder / "policies/lanes.yaml"
        text, _, _ = lanes.read_text(encoding="utf-8").partition("\ngates:")
        lanes.write_text(
            f"{text}\ngates: {{{f'mongodb: {{latency: {LATENCY}}}' if gated else ''}}}\n", encoding="utf-8"
        )
        installation.fill(users)
        installation.apply(BIG, BIG)
        installation.wait_until_quiet(30)
        _pinned(installation, server)
        url = installation.mongo_url
        subprocess.run([sys.executable, "-m", "bench.foreground", url, "--fill", "--seconds", "0"], check=True)
        spent = installation.usage().cpu["mongod"]
        with foreground(url) as rest, busy():
            time.sleep(AT_REST)
        at_rest = (installation.usage().cpu["mongod"] - spent) / AT_REST
        with foreground(url) as during:
            began, spent = time.monotonic(), installation.usage().cpu["mongod"]
            installation.run("campaign", "launch", BIG)
            while server.now()["recipients"] < users and time.monotonic() - began < _PATIENCE:
                time.sleep(0.25)
            took = time.monotonic() - began
            mongod = (installation.usage().cpu["mongod"] - spent) / took - at_rest
        installation.wait_until_quiet(60)
        with foreground(url) as equal, busy(mongod):
            time.sleep(AT_REST)
        limits = sum(1 for _ in log_events(installation, "gate.changed"))
        counts = server.now()
        return Campaign(
            rest=rest[0],
            during=during[0],
            equal=equal[0],
            mongod=mongod,
            mails=counts["recipients"] / took,
            missing=server.compared(installation.addresses)["missing"],
            doubled=counts["repeated"],
            limits=limits,
        )


def _pinned(installation: Installation, server: Sink) -> None:
    installation.pin(lambda kind: MONGOD_CORE if kind == "mongod" else OTHER_CORE)
    os.sched_setaffinity(server.pid, {OTHER_CORE})


_HEAD: Final = (
    "| gate | users | mails/s | of the ungated rate | mongod's core | p50, p95, p99 of the company's users during the "
    "campaign (ms) | beside an equal load of both cores (ms) | p99, times | beside a load of the other core only (ms) "
    "| p99, times | missing, doubled |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def gate(users: int, rounds: int) -> str:
    """Return the table: medians of launches with the gate and without."""
    rows = [_HEAD]
    tried = {gated: [launched(users, gated=gated) for _ in range(rounds)] for gated in (False, True)}
    print(*tried[False], *tried[True], sep="\n", file=sys.stderr, flush=True)
    full = statistics.median(one.mails for one in tried[False])
    for gated, ones in tried.items():
        mails = statistics.median(one.mails for one in ones)
        equal = statistics.median(one.during.p99 / one.equal.p99 for one in ones)
        rest = statistics.median(one.during.p99 / one.rest.p99 for one in ones)
        rows.append(
            f"| {f'`latency: {LATENCY}`' if gated else 'off'} | {users:,} | {mails:,.0f} | {mails / full:.0%} "
            f"| {statistics.median(one.mongod for one in ones):.0%} | {_three([one.during for one in ones])} "
            f"| {_three([one.equal for one in ones])} | {equal:.2f} "
            f"| {_three([one.rest for one in ones])} | {rest:.2f} "
            f"| {max(one.missing for one in ones):,}, {max(one.doubled for one in ones):,} |"
        )
    return "\n".join(rows)


def _three(noticed: Sequence[Noticed]) -> str:
    medians = [statistics.median(getattr(one, name) for one in noticed) for name in ("p50", "p95", "p99")]
    return ", ".join(f"{one:.1f}" for one in medians)
