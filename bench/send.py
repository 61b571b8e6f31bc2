"""`python -m bench.send`: measure mails per processor second and mails a second to a late provider.

The tables go into `docs/benchmarks.md`. P6 launches a campaign to everybody and counts the processor time of the
worker, mongod and Valkey until every mail is settled. P6b measures the wall-clock time of delivery alone, to a sink
that answers each command 10 ms late.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch

import redis

from bench import marks, report
from bench.launches import Launch, Meter, Phase, Setup
from bench.measure import machine
from bench.run import Ground, ground
from bench.sink_process import sink
from engine.pipeline.delivery.send_window import WindowSender

WAYS: Final = {
    "window 50, 4 connections": Setup(threads=1, window=50, connections=4),
    "window 1000, 4 connections": Setup(threads=1, window=1000, connections=4),
    "window 1000, 16 connections": Setup(threads=1, window=1000, connections=16),
}
LATE: Final = {
    "2 threads, 25 connections each": Setup(threads=2, window=1000, connections=25),
    "4 threads, 100 connections each": Setup(threads=4, window=1000, connections=100),
}
HEAD: Final = (
    "| way | mails a round | entering and choosing: worker, mongod | delivering: worker, mongod | Valkey | a mail "
    "| mails per processor second, median (least to most) "
    "| not counted: the evaluation that ends an enrolment |"
)
MEDIANS: Final = "Medians of {rounds} launches, after one launch to warm up."
FLOORS: Final = {
    "read what is queued": ("mongod 3 µs, decoding 4 µs", "at it"),
    "read the users": ("mongod 3 µs, decoding 4 µs", "at it: five fields of adjacent ids"),
    "compose": ("2.5 µs for replacing parts", "a hash of the key, an address to check, Python objects"),
    "send": ("25 µs", "the dialogue in Python, three system calls a mail and connection"),
    "settle and mark": ("2 to 12 µs (mongod: 65 µs)", "at it: one write a window"),
    "tell": ("none known", "one redacted JSON line a mail, written a hundred at a time"),
}


def processor(place: Ground, rounds: int) -> list[tuple[str, int, list[tuple[Phase, Phase, Phase]]]]:
    """Measure P6: for each way its mails a round, and the cost of entering, delivering and ending."""
    meter = _meter(place)
    results: list[tuple[str, int, list[tuple[Phase, Phase, Phase]]]] = []
    for name, setup in WAYS.items():
        with sink() as server:
            launch = Launch(place.addresses, place.folder, setup, server.port)
            try:
                measured, mails = [], 0
                for number in range(rounds + 1):
                    phases = _round(launch, meter)
                    ends = launch.ends()
                    mails = ends["sent"]
                    assert ends == {"sent": mails}, ends
                    if number:
                        measured.append(phases)
            finally:
                launch.close()
            taken = server.taken()
        assert taken["mails"] == mails * (rounds + 1), taken
        assert taken["repeated"] == mails * rounds, "a recipient was written to twice in one round"
        results.append((name, mails, measured))
    return results


def _round(launch: Launch, meter: Meter) -> tuple[Phase, Phase, Phase]:
    launch.prepare()
    phases: list[Phase] = []
    for step in (launch.enter, launch.deliver, launch.end):
        with meter.phase(phases):
            step()
    return phases[0], phases[1], phases[2]


def late(place: Ground, rounds: int) -> list[tuple[str, list[float], list[float]]]:
    """Measure P6b: for each way the mails a second and processor microseconds a mail of delivery."""
    meter = _meter(place)
    results: list[tuple[str, list[float], list[float]]] = []
    for name, setup in LATE.items():
        with sink(late=10) as server:
            launch = Launch(place.addresses, place.folder, setup, server.port)
            try:
                rates, costs = [], []
                for number in range(rounds + 1):
                    phase = _round(launch, meter)[1]
                    mails = launch.ends()["sent"]
                    if number:
                        rates.append(mails / phase.seconds)
                        costs.append(phase.cpu / mails * 1e6)
            finally:
                launch.close()
        results.append((name, rates, costs))
    return results


def parts(place: Ground) -> dict[str, float]:
    """Return the processor microseconds a mail that the sending thread spends in each part.

    The measured round follows one warm-up.
    """
    spent: defaultdict[str, float] = defaultdict(float)
    with sink() as server:
        launch = Launch(place.addresses, place.folder, WAYS["window 1000, 4 connections"], server.port)
        try:
            with _clocked(launch, spent):
                for _ in range(2):
                    spent.clear()
                    launch.prepare()
                    launch.enter()
                    launch.deliver()
            mails = launch.ends()["sent"]
        finally:
            launch.close()
    return {name: seconds / mails * 1e6 for name, seconds in spent.items()}


@contextmanager
def _clocked(launch: Launch, spent: defaultdict[str, float]) -> Iterator[None]:
    """Measure the time of the parts of the deliver step while the block runs."""
    stores = launch.app.stores
    with ExitStack() as clocks:
        for owner, method, name in (
            (stores.deliveries, "outgoing", "read what is queued"),
            (stores.users, "read_keys", "read the users"),
            (WindowSender, "composed", "compose"),
            (stores.deliveries, "settle_and_mark", "settle and mark"),
            (launch.app.channel("email"), "send", "send"),
            (WindowSender, "write", "tell"),
            (launch.app.slice_deliverer, "run", "all"),
        ):
            clocks.enter_context(patch.object(owner, method, _timed(getattr(owner, method), name, spent)))
        yield


def _timed(function: Callable[..., Any], name: str, spent: defaultdict[str, float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        began = time.thread_time()
        try:
            return function(*arguments, **named)
        finally:
            spent[name] += time.thread_time() - began

    return timed


def processor_table(results: Sequence[tuple[str, int, list[tuple[Phase, Phase, Phase]]]]) -> str:
    """Return P6 as a Markdown table."""
    rows = [
        HEAD,
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, mails, measured in results:
        rates = [mails / (enter.cpu + deliver.cpu) for enter, deliver, _ in measured]

        def each(read: Callable[[tuple[Phase, Phase, Phase]], float], some: Any = measured, of: int = mails) -> float:
            return statistics.median(read(usage) for usage in some) / of * 1e6

        rate = statistics.median(rates)
        rows.append(
            f"| {name} | {mails:,} "
            f"| {each(lambda usages: usages[0].worker):.0f} µs, {each(lambda usages: usages[0].mongod):.0f} µs "
            f"| {each(lambda usages: usages[1].worker):.0f} µs, {each(lambda usages: usages[1].mongod):.0f} µs "
            f"| {each(lambda usages: usages[0].valkey + usages[1].valkey):.1f} µs "
            f"| {each(lambda usages: usages[0].cpu + usages[1].cpu):.0f} µs "
            f"| {rate:,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) "
            f"| {each(lambda usages: usages[2].cpu):.0f} µs |"
        )
    return "\n".join(rows)


def late_table(results: Sequence[tuple[str, list[float], list[float]]]) -> str:
    """Return P6b as a Markdown table."""
    rows = [
        "| way | mails/s, median (least to most) | processor time a mail |",
        "|---|--:|--:|",
    ]
    for name, rates, costs in results:
        rate = statistics.median(rates)
        rows.append(
            f"| {name} | {rate:,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) | {statistics.median(costs):.0f} µs |"
        )
    return "\n".join(rows)


def parts_table(spent: dict[str, float]) -> str:
    """Return the sending thread's time by part, with the floor of each part."""
    own = {**spent, "tell": spent["tell"] - spent["settle and mark"]}
    rows = ["| part | the worker's processor time a mail | floor | why we miss it |", "|---|--:|--:|---|"]
    rows += [f"| {name} | {own[name]:.1f} µs | {floor} | {why} |" for name, (floor, why) in FLOORS.items()]
    rest = own["all"] - sum(own[name] for name in FLOORS)
    return "\n".join([*rows, f"| the rest: slices, leases, keys | {rest:.1f} µs | | |"])


def marks_table(measured: Sequence[marks.Marks]) -> str:
    """Return the savings of a mark per window."""

    def each(name: str) -> float:
        return statistics.median(float(getattr(saved, name)) for saved in measured)

    return (
        "| mongod's processor time a mail | mark | settle | both |\n|---|--:|--:|--:|\n"
        f"| per delivery, as it is | {each('mark'):.1f} µs | {each('settle'):.1f} µs "
        f"| {each('mark') + each('settle'):.1f} µs |\n"
        f"| per window, with its ids | {each('mark_window'):.1f} µs | {each('settle_window'):.1f} µs "
        f"| {each('mark_window') + each('settle_window'):.1f} µs |"
    )


def _meter(place: Ground) -> Meter:
    server = int(place.database.command("serverStatus")["pid"])
    info = redis.Redis.from_url(place.addresses["services.broker_url"]).info()
    assert isinstance(info, dict)
    return Meter(server, int(info["process_id"]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench; return 0 when it is done."""
    parser = argparse.ArgumentParser(prog="python -m bench.send", description=__doc__)
    parser.add_argument("--users", type=int, default=20_000, help="users, of whom 98 %% get a mail (default 20,000)")
    parser.add_argument("--rounds", type=int, default=5, help="measured launches of each way (default 5)")
    parser.add_argument("--print-only", action="store_true", help="leave docs/benchmarks.md as it is")
    given = parser.parse_args(argv)
    load = os.getloadavg()[0]
    with ground(given.users) as place:
        p6 = processor(place, given.rounds)
        spent = parts(place)
        p6b = late(place, given.rounds)
        windows = [marks.measure(place.database, given.users, 1000) for _ in range(given.rounds)]
        version = str(place.database.client.server_info()["version"])
    command = f"python -m bench.send --users {given.users} --rounds {given.rounds}"
    text = "\n\n".join(
        (
            f"Measured with `{command}` on {machine(version, load)}. {MEDIANS.format(rounds=given.rounds)}",
            "### P6: mails per processor second",
            processor_table(p6),
            "### Where the sending thread's time goes (window 1000, 4 connections)",
            parts_table(spent),
            "### P6b: mails a second to a provider that answers each command 10 ms late",
            late_table(p6b),
            "### What a mark per window would save (window 1000)",
            marks_table(windows),
        )
    )
    report.publish("bench.send", text, print_only=given.print_only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
