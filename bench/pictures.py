"""The three plots of the README, drawn from what is measured here."""

from __future__ import annotations

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
STRETCH: Final = 8.0
"""Seconds of passes without, then with the cache."""

MINUTE: Final = 60.0
"""A pass of each campaign a minute, as the profiles have it."""


def draw(engine: Engine, users: int, enrolled: tuple[int, ...]) -> str:
    """Measure, draw, and say where the pictures are."""
    engine.warm()
    load = _switched(engine)
    chart(
        FOLDER / "mongodb-load.svg",
        "MongoDB while passes go on: the cache is switched on half-way",
        Axis("seconds"),
        Axis("documents examined a second"),
        [Line("passes, back to back", load)],
    )
    keys = [str(one["_id"]) for one in engine.database["users"].find({}, {"_id": 1}).limit(2_000)]
    naive = _naive(engine.database, keys)
    rates = {path: _rate(engine, path, users) for path in (AccessPath.SCAN, AccessPath.CACHE)}
    campaigns = [10, 30, 100, 300, 1_000]
    chart(
        FOLDER / "workers.svg",
        f"Workers for a full pass a minute over {users:,} users",
        Axis("campaigns", logarithmic=True),
        Axis("workers (processor seconds a second)", logarithmic=True),
        [
            Line("naive", [(n, n * users * naive / MINUTE) for n in campaigns]),
            Line("range scans", [(n, n * users * rates[AccessPath.SCAN] / MINUTE) for n in campaigns]),
            Line("cached scans", [(n, n * users * rates[AccessPath.CACHE] / MINUTE) for n in campaigns]),
        ],
    )
    told = passes_of(engine, list(enrolled), 3, due=100)
    chart(
        FOLDER / "enrolled.svg",
        "Processor time of a pass by enrolled users, 100 due",
        Axis("enrolled users", logarithmic=True),
        Axis("processor seconds", logarithmic=True),
        [
            Line("looks at everybody (naive)", [(one.enrolled, one.enrolled * naive) for one in told]),
            Line("looks at who is due", [(one.enrolled, max(one.cost.processor, 1e-3)) for one in told]),
        ],
    )
    return (
        f"`docs/plots/`: processor time a user and pass {naive * 1e6:.0f} µs naive, "
        f"{rates[AccessPath.SCAN] * 1e6:.1f} µs by range scan, {rates[AccessPath.CACHE] * 1e6:.2f} µs by cached scan "
        "(worker and mongod together); the lines of workers are these times the number of campaigns and users."
    )


def _switched(engine: Engine) -> list[tuple[float, float]]:
    """Documents examined a second, every half second, while launches go on by range scan and then by cached scan."""
    points: list[tuple[float, float]] = []
    stop = threading.Event()

    def sample() -> None:
        began, (_, before) = time.perf_counter(), counters(engine.database)
        while not stop.wait(0.5):
            at, (_, now) = time.perf_counter() - began, counters(engine.database)
            points.append((at, (now - before) * 2))
            before = now

    sampler = threading.Thread(target=sample)
    sampler.start()
    for path in (AccessPath.SCAN, AccessPath.CACHE):
        until = time.perf_counter() + STRETCH
        while time.perf_counter() < until:
            _launch(engine, path)
    stop.set()
    sampler.join()
    return points


def _launch(engine: Engine, path: AccessPath) -> None:
    engine.clear()
    run = engine.launch(engine.campaign(NAME, ONE_PERCENT), path)
    with engine.feed():
        engine.work(run)


def _rate(engine: Engine, path: AccessPath, users: int) -> float:
    """Processor seconds a user of a pass, of this process and mongod together."""
    _launch(engine, path)
    before = _cpu(engine.database)
    for _ in range(3):
        _launch(engine, path)
    return (_cpu(engine.database) - before) / (3 * users)


def _naive(database: Database[dict[str, Any]], keys: list[str]) -> float:
    way = NaiveWay(database, keys, ONE_PERCENT, AS_OF)
    way.prepare()
    way.run()
    way.prepare()
    before = _cpu(database)
    way.run()
    return (_cpu(database) - before) / len(keys)


def _cpu(database: Database[dict[str, Any]]) -> float:
    server = psutil.Process(int(database.command("serverStatus")["pid"]))
    return sum(sum(process.cpu_times()[:2]) for process in (psutil.Process(), server))
