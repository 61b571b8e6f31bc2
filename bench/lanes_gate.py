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
    """One launch: what the users noticed beside an equal load of the processors, what during it, and mails a second."""

    before: Noticed
    during: Noticed
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


@contextmanager
def busy(threads: int = 2) -> Iterator[None]:
    """Load the other core during the block, as the workers do, without MongoDB."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(threads)]
    for process in processes:
        os.sched_setaffinity(process.pid, {OTHER_CORE})
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
        with foreground(url) as before, busy():
            time.sleep(AT_REST)
        with foreground(url) as during:
            began = time.monotonic()
            installation.run("campaign", "launch", BIG)
            while server.now()["recipients"] < users and time.monotonic() - began < _PATIENCE:
                time.sleep(0.25)
            took = time.monotonic() - began
        limits = sum(1 for _ in log_events(installation, "gate.changed"))
        counts = server.now()
        return Campaign(
            before=before[0],
            during=during[0],
            mails=counts["recipients"] / took,
            missing=server.compared(installation.addresses)["missing"],
            doubled=counts["repeated"],
            limits=limits,
        )


def _pinned(installation: Installation, server: Sink) -> None:
    installation.pin(lambda kind: MONGOD_CORE if kind == "mongod" else OTHER_CORE)
    os.sched_setaffinity(server.pid, {OTHER_CORE})


_HEAD: Final = (
    "| gate | users | mails/s | of the ungated rate | p50, p95, p99 of the company's users beside an equal load of the "
    "processors (ms) | during the campaign (ms) | p99, times | missing, doubled |\n|---|--:|--:|--:|--:|--:|--:|--:|"
)


def gate(users: int, rounds: int) -> str:
    """Return the table: medians of launches with the gate and without."""
    rows = [_HEAD]
    tried = {gated: [launched(users, gated=gated) for _ in range(rounds)] for gated in (False, True)}
    print(*tried[False], *tried[True], sep="\n", file=sys.stderr, flush=True)
    full = statistics.median(one.mails for one in tried[False])
    for gated, ones in tried.items():
        mails = statistics.median(one.mails for one in ones)
        times = statistics.median(one.during.p99 / one.before.p99 for one in ones)
        rows.append(
            f"| {f'`latency: {LATENCY}`' if gated else 'off'} | {users:,} | {mails:,.0f} | {mails / full:.0%} "
            f"| {_three([one.before for one in ones])} | {_three([one.during for one in ones])} | {times:.2f} "
            f"| {max(one.missing for one in ones):,}, {max(one.doubled for one in ones):,} |"
        )
    return "\n".join(rows)


def _three(noticed: Sequence[Noticed]) -> str:
    medians = [statistics.median(getattr(one, name) for one in noticed) for name in ("p50", "p95", "p99")]
    return ", ".join(f"{one:.1f}" for one in medians)
