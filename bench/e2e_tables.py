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
    for name, one in chosen.items():
        rates, costs = [each.rate for each in ways[name]], [each.cost for each in ways[name]]
        cost = statistics.median(costs)
        rows.append(
            f"| {name} | {one.users:,} | {one.first:.1f} s | {one.last:.1f} s | {_spread(rates)} "
            f"| {one.rate * one.calib / REFERENCE:,.0f} | {cost:,.0f} µs | {cost * REFERENCE / one.calib:,.0f} µs "
            f"| {one.longest:.2f} s | {one.missing}, {one.doubled} | {one.load:.1f} |"
        )
    first = next(iter(chosen.values()))
    rows.append(_peer_row(peer, first.calib))
    return "\n".join((*rows, "", _by_process(chosen)))


def _peer_row(peer: Sequence[Sent] | None, calib: float) -> str:
    if not peer:
        return f"| listmonk | {NO_PEER} | | | | | | | | | |"
    middle = sorted(peer, key=lambda one: one.rate)[(len(peer) - 1) // 2]
    costs = [one.cost for one in peer if one.cost is not None]
    cost = statistics.median(costs) if costs else None
    shown = ("elsewhere", "") if cost is None else (f"{cost:,.0f} µs", f"{cost * REFERENCE / calib:,.0f} µs")
    return (
        f"| listmonk, 50 connections, 10,000 a batch | {middle.users:,} | {middle.first:.1f} s | {middle.last:.1f} s "
        f"| {_spread([one.rate for one in peer])} | {middle.rate * calib / REFERENCE:,.0f} | {shown[0]} | {shown[1]} "
        f"| | {max(one.missing for one in peer)}, {max(one.doubled for one in peer)} | |"
    )


def _by_process(chosen: Mapping[str, Launched]) -> str:
    """Return processor microseconds a mail by process and store."""
    rows = [
        "| processor µs a mail | "
        + " | ".join(KINDS)
        + " | others | until quiet | last line searchable | the sink's |",
        "|---|" + "--:|" * (len(KINDS) + 4),
    ]
    for name, one in chosen.items():
        each = per_mail(one.spent, one.users)
        others = sum(cost for kind, cost in each.items() if kind not in KINDS)
        found = {None: "", True: "yes", False: "NO"}[one.searchable]
        rows.append(
            f"| {name} | "
            + " | ".join(f"{each.get(kind, 0.0):.0f}" for kind in KINDS)
            + f" | {others:.0f} | {one.quiet - one.last:.0f} s after | {found} | {one.sink / one.users * 1e6:.0f} |"
        )
    return "\n".join(rows)


def late(told: Sequence[tuple[Manner, int, Sequence[Launched]]]) -> str:
    """P23: mails a second against the limit of the connections."""
    rows = [
        (
            "| sink | users | mails/s, median (least to most) | connections | what they allow | of it | first mail "
            "| longest without a mail | missing, doubled | load before |"
        ),
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for manner, connections, launches in told:
        one = median_of(launches)
        allowed = connections / manner.mean
        rows.append(
            f"| {manner.name} | {one.users:,} | {_spread([each.rate for each in launches], 1)} | {connections} "
            f"| {allowed:,.0f} | {one.rate / allowed:.0%} | {one.first:.1f} s | {one.longest:.2f} s "
            f"| {one.missing}, {one.doubled} | {one.load:.1f} |"
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
        f"| {len(one.small)} | {one.after} | {one.users - 100 * (len(one.small) + one.after):,} "
        f"| {statistics.median(one.small):.2f} s "
        f"| {percentile(one.small, 0.95):.2f} s | {max(one.small):.2f} s | {one.missing}, {one.doubled} "
        f"| {one.load:.1f} |"
        for one in launches
    ]
    return "\n".join(rows)


def memory(launches: Sequence[Launched]) -> str:
    """P25: memory of each process before the launch and at its peak."""
    rows = ["| process | before the launch | at the most | |", "|---|--:|--:|---|"]
    for kind in (*WORKERS, "mongod", "Valkey", "java"):
        before = max(one.memory.get(kind, (0.0, 0.0))[0] for one in launches)
        peak = max(one.memory.get(kind, (0.0, 0.0))[1] for one in launches)
        if peak:
            verdict = ("<= 250 MiB" if peak <= 250 else "ABOVE 250 MiB") if kind in WORKERS else ""
            rows.append(f"| {kind} | {before:.0f} MiB | {peak:.0f} MiB | {verdict} |")
    return "\n".join(rows)


def two(one: Sequence[Launched], other: Sequence[Launched]) -> str:
    """P26: two deliver processes against one."""
    rows = [
        "| deliver processes | users | mails/s, median (least to most) | of one's | missing, doubled | load before |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    bare = median_of(one).rate
    for count, launches in ((1, one), (2, other)):
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
        sorted(launches, key=lambda one: one.rate)[(len(launches) - 1) // 2],
        missing=max(one.missing for one in launches),
        doubled=max(one.doubled for one in launches),
        longest=max(one.longest for one in launches),
    )


def _spread(rates: Sequence[float], digits: int = 0) -> str:
    return f"{statistics.median(rates):,.{digits}f} ({min(rates):,.{digits}f} to {max(rates):,.{digits}f})"
