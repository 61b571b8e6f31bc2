"""The plots of the README, drawn from measurements made here."""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path
from typing import Any, Final

import psutil
from pymongo.database import Database

from bench.audiences import ONE_PERCENT
from bench.enrolled import measure as passes_of
from bench.measure import counters
from bench.naive import NaiveWay
from bench.ours import NAME, Engine
from bench.plots import Axis, Line, chart
from bench.population import AS_OF
from engine.domain.work import AccessPath

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "plots"
PASSES: Final = 4
"""Passes without the cache, and again with it."""

SAMPLE: Final = 1.0
"""Seconds between two readings of mongod's counters."""

MANY: Final = 1_000_000
SOME: Final = 100
"""Users and campaigns of the plots of workers, where they are not on the axis."""

MINUTE: Final = 60.0
"""Seconds between two passes of a campaign in the plots, as in the profiles."""


def draw(engine: Engine, users: int, enrolled: tuple[int, ...], rounds: int) -> str:
    """Measure, draw, and return a sentence on the pictures."""
    engine.warm()
    every, commands, examined = _switched(engine)
    chart(
        FOLDER / "mongodb-load.svg",
        f"MongoDB, a pass over {users:,} users every {every:.0f} s: the cache is switched on half-way",
        Axis("seconds"),
        Axis("a second", logarithmic=True),
        [Line("documents examined", examined), Line("operations", commands)],
    )
    keys = [str(document["_id"]) for document in engine.database["users"].find({}, {"_id": 1}).limit(2_000)]
    naive = _naive(engine.database, keys)
    rates = {path: _rate(engine, path, users, rounds) for path in (AccessPath.SCAN, AccessPath.CACHE)}
    costs = {"naive": naive, "range scans": rates[AccessPath.SCAN], "cached scans": rates[AccessPath.CACHE]}
    for name, title, per, others in (
        ("workers.svg", "campaigns", (10, 30, 100, 300, 1_000), MANY),
        ("workers-users.svg", "users", (10_000, 100_000, 1_000_000, 10_000_000), SOME),
    ):
        fixed = f"{MANY:,} users" if title == "campaigns" else f"{SOME} campaigns"
        chart(
            FOLDER / name,
            f"Workers for a full pass a minute: {fixed}",
            Axis(title, logarithmic=True),
            Axis("workers (processor seconds a second)", logarithmic=True),
            [Line(label, [(n, n * others * cost / MINUTE) for n in per]) for label, cost in costs.items()],
        )
    passes = passes_of(engine, list(enrolled), rounds, due=100)
    chart(
        FOLDER / "enrolled.svg",
        "Processor time of a pass by enrolled users, 100 due",
        Axis("enrolled users", logarithmic=True),
        Axis("processor seconds", logarithmic=True),
        [
            Line("looks at everybody (naive)", [(measured.enrolled, measured.enrolled * naive) for measured in passes]),
            Line(
                "looks at who is due", [(measured.enrolled, max(measured.cost.processor, 1e-3)) for measured in passes]
            ),
        ],
    )
    return (
        f"`docs/plots/`: processor time a user and pass {naive * 1e6:.0f} µs naive, "
        f"{rates[AccessPath.SCAN] * 1e6:.1f} µs by range scan, {rates[AccessPath.CACHE] * 1e6:.2f} µs by cached scan "
        "(worker and mongod together, 1 % match); the lines of workers are these times campaigns and users."
    )


def _switched(engine: Engine) -> tuple[float, list[tuple[float, float]], list[tuple[float, float]]]:
    """Measure MongoDB's load under range scans and then under cached scans.

    Returns the seconds between two passes, and commands and documents examined a second. Passes start at intervals of
    the duration of one range scan; a cached pass waits for the next start.
    """
    points: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    began = time.perf_counter()
    _launch(engine, AccessPath.SCAN)
    every = time.perf_counter() - began
    stop = threading.Event()

    def sample() -> None:
        began, last, before = time.perf_counter(), 0.0, counters(engine.database)
        while not stop.wait(SAMPLE):
            at, now = time.perf_counter() - began, counters(engine.database)
            for line, new, old in zip(points, now, before, strict=True):
                line.append((at, max(1.0, (new - old) / (at - last))))
            last, before = at, now

    sampler = threading.Thread(target=sample)
    sampler.start()
    for path in [AccessPath.SCAN] * PASSES + [AccessPath.CACHE] * PASSES:
        began = time.perf_counter()
        _launch(engine, path)
        time.sleep(max(0.0, began + every - time.perf_counter()))
    stop.set()
    sampler.join()
    return every, *points


def _launch(engine: Engine, path: AccessPath) -> None:
    engine.clear()
    run = engine.launch(engine.campaign(NAME, ONE_PERCENT), path)
    with engine.feed():
        engine.work(run)


def _rate(engine: Engine, path: AccessPath, users: int, rounds: int) -> float:
    """Return the median processor seconds a user of a pass, of this process and mongod together, after one warm-up."""
    costs: list[float] = []
    for _ in range(rounds + 1):
        before = _cpu(engine.database)
        _launch(engine, path)
        costs.append((_cpu(engine.database) - before) / users)
    return statistics.median(costs[1:])


def _naive(database: Database[dict[str, Any]], keys: list[str]) -> float:
    naive_ = NaiveWay(database, keys, ONE_PERCENT, AS_OF)
    naive_.prepare()
    naive_.run()
    naive_.prepare()
    before = _cpu(database)
    naive_.run()
    return (_cpu(database) - before) / len(keys)


def _cpu(database: Database[dict[str, Any]]) -> float:
    server = psutil.Process(int(database.command("serverStatus")["pid"]))
    return sum(sum(process.cpu_times()[:2]) for process in (psutil.Process(), server))
