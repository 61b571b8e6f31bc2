"""The tables of `bench.e2e`, as Markdown, each figure beside its goal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from bench.calibration import REFERENCE
from bench.e2e_cases import Launched, Manner, percentile
from bench.peers.listmonk import Sent
from bench.processes import WORKERS, per_mail

KINDS: Final = ("deliver", "slow", "fast", "clock", "ship", "mongod", "Valkey", "java")
"""Columns of the processor's table; all other kinds are summed."""
NO_PEER: Final = "missing: no listmonk was given (`BENCH_LISTMONK_URL`)"


def whole(ways: Mapping[str, Sequence[Launched]], peer: Sequence[Sent] | None) -> str:
    """P21 and P22: launch to last mail, and the cost of a mail, for ours and for listmonk in the same run."""
    chosen = {name: median_of(launches) for name, launches in ways.items()}
    rows = [
        (
            "| way | users | first mail | last mail | mails/s, median (least to most) | at `calib_s` 0.45 "
            "| processor time a mail | at 0.45 | longest without a mail | missing, doubled | load before |"
        ),
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, run in chosen.items():
        rates, costs = [each.rate for each in ways[name]], [each.cost for each in ways[name]]
        cost = statistics.median(costs)
        rows.append(
            f"| {name} | {run.users:,} | {run.first:.1f} s | {run.last:.1f} s | {_spread(rates)} "
            f"| {run.rate * run.calib / REFERENCE:,.0f} | {cost:,.0f} µs | {cost * REFERENCE / run.calib:,.0f} µs "
            f"| {run.longest:.2f} s | {run.missing}, {run.doubled} | {run.load:.1f} |"
        )
    first = next(iter(chosen.values()))
    rows.append(_peer_row(peer, first.calib))
    return "\n".join((*rows, "", _by_process(chosen)))


def _peer_row(peer: Sequence[Sent] | None, calib: float) -> str:
    if not peer:
        return f"| listmonk | {NO_PEER} | | | | | | | | | |"
    middle = sorted(peer, key=lambda sent: sent.rate)[(len(peer) - 1) // 2]
    costs = [sent.cost for sent in peer if sent.cost is not None]
    cost = statistics.median(costs) if costs else None
    shown = ("elsewhere", "") if cost is None else (f"{cost:,.0f} µs", f"{cost * REFERENCE / calib:,.0f} µs")
    return (
        f"| listmonk, 50 connections, 10,000 a batch | {middle.users:,} | {middle.first:.1f} s | {middle.last:.1f} s "
        f"| {_spread([sent.rate for sent in peer])} | {middle.rate * calib / REFERENCE:,.0f} | {shown[0]} | {shown[1]} "
        f"| | {max(sent.missing for sent in peer)}, {max(sent.doubled for sent in peer)} | |"
    )


def _by_process(chosen: Mapping[str, Launched]) -> str:
    """Return processor microseconds a mail by process and store."""
    rows = [
        "| processor µs a mail | "
        + " | ".join(KINDS)
        + " | others | until quiet | last line searchable | the sink's |",
        "|---|" + "--:|" * (len(KINDS) + 4),
    ]
    for name, run in chosen.items():
        each = per_mail(run.spent, run.users)
        others = sum(cost for kind, cost in each.items() if kind not in KINDS)
        searchable = {None: "", True: "yes", False: "NO"}[run.searchable]
        sink = run.sink / run.users * 1e6
        rows.append(
            f"| {name} | "
            + " | ".join(f"{each.get(kind, 0.0):.0f}" for kind in KINDS)
            + f" | {others:.0f} | {run.quiet - run.last:.0f} s after | {searchable} | {sink:.0f} |"
        )
    return "\n".join(rows)


def late(cases: Sequence[tuple[Manner, int, Sequence[Launched]]]) -> str:
    """P23: mails a second against the limit of the connections."""
    rows = [
        (
            "| sink | users | mails/s, median (least to most) | connections | what they allow | of it | first mail "
            "| longest without a mail | missing, doubled | load before |"
        ),
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for manner, connections, launches in cases:
        launched = median_of(launches)
        allowed = connections / manner.mean
        rows.append(
            f"| {manner.name} | {launched.users:,} | {_spread([each.rate for each in launches], 1)} | {connections} "
            f"| {allowed:,.0f} | {launched.rate / allowed:.0%} | {launched.first:.1f} s | {launched.longest:.2f} s "
            f"| {launched.missing}, {launched.doubled} | {launched.load:.1f} |"
        )
    return "\n".join(rows)


def crowd(launches: Sequence[Launched]) -> str:
    """P24: small campaigns while a big one goes out."""
    rows = [
        (
            "| small campaigns meanwhile | too late, not counted | users of the big one "
            "| launch to last mail: median | p95 | longest | missing, doubled | load before |"
        ),
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    rows += [
        f"| {len(launch.small)} | {launch.after} | {launch.users - 100 * (len(launch.small) + launch.after):,} "
        f"| {statistics.median(launch.small):.2f} s "
        f"| {percentile(launch.small, 0.95):.2f} s | {max(launch.small):.2f} s | {launch.missing}, {launch.doubled} "
        f"| {launch.load:.1f} |"
        for launch in launches
    ]
    return "\n".join(rows)


def memory(launches: Sequence[Launched]) -> str:
    """P25: memory of each process before the launch and at its peak."""
    rows = ["| process | before the launch | at the most | |", "|---|--:|--:|---|"]
    for kind in (*WORKERS, "mongod", "Valkey", "java"):
        before = max(launch.memory.get(kind, (0.0, 0.0))[0] for launch in launches)
        peak = max(launch.memory.get(kind, (0.0, 0.0))[1] for launch in launches)
        if peak:
            verdict = ("<= 250 MiB" if peak <= 250 else "ABOVE 250 MiB") if kind in WORKERS else ""
            rows.append(f"| {kind} | {before:.0f} MiB | {peak:.0f} MiB | {verdict} |")
    return "\n".join(rows)


def two(first: Sequence[Launched], other: Sequence[Launched]) -> str:
    """P26: two deliver processes against one."""
    rows = [
        "| deliver processes | users | mails/s, median (least to most) | of one's | missing, doubled | load before |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    bare = median_of(first).rate
    for count, launches in ((1, first), (2, other)):
        middle = median_of(launches)
        rows.append(
            f"| {count} | {middle.users:,} | {_spread([each.rate for each in launches])} | {middle.rate / bare:.2f} "
            f"| {middle.missing}, {middle.doubled} | {middle.load:.1f} |"
        )
    return "\n".join(rows)


def median_of(launches: Sequence[Launched]) -> Launched:
    """Return the launch whose rate is the median (the lower of two).

    Counts of faults and the longest gap are the worst of all.
    """
    return replace(
        sorted(launches, key=lambda launch: launch.rate)[(len(launches) - 1) // 2],
        missing=max(launch.missing for launch in launches),
        doubled=max(launch.doubled for launch in launches),
        longest=max(launch.longest for launch in launches),
    )


def _spread(rates: Sequence[float], digits: int = 0) -> str:
    return f"{statistics.median(rates):,.{digits}f} ({min(rates):,.{digits}f} to {max(rates):,.{digits}f})"
