"""P10, P18: time from a change of one user to the delivery chosen for it, and the feed's lag under many changes."""

from __future__ import annotations

import random
import statistics
import threading
import time
from dataclasses import dataclass
from typing import Final

from bench.audiences import ONE_FIFTH
from bench.ours import NAME, Engine
from bench.population import WORKSPACE
from engine.domain.changes import UserChange
from engine.domain.keys import user_key
from engine.domain.lifecycle import CampaignState
from engine.domain.work import AccessPath

NAMED: Final = 50
"""Campaigns of P18 that name the changing field."""


@dataclass(frozen=True, slots=True)
class Lags:
    """Number of changes, seconds from each one to its effect (median, p99), and the number of missing effects."""

    changes: int
    median: float
    p99: float
    missed: int


class Looker:
    """Evaluates changed users as soon as a request exists, like the actor `look_at_users`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="looker")

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._engine.app.rechecker.run():
                self._stop.wait(0.005)

    def __enter__(self) -> Looker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def change_to_delivery(engine: Engine, changes: int) -> Lags:
    """Measure P10: make one user after another match, while another thread repeats passes over everybody."""
    engine.clear()
    live = engine.campaign("arrivals", 'all: [{income: "arrived"}]\n', kind="continuous")
    with engine.feed():
        engine.work(engine.launch(live, AccessPath.SCAN))
    stop = threading.Event()

    def pass_over_everybody() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            record = engine.campaign(f"{NAME}-{number}", ONE_FIFTH)
            engine.work(engine.launch(record, AccessPath.CACHE))

    waits: list[float] = []
    upserts = engine.app.imports(WORKSPACE).upserts
    with engine.feed(), Looker(engine):
        passing = threading.Thread(target=pass_over_everybody)
        passing.start()
        try:
            for number in range(1, changes + 1):
                key = user_key(WORKSPACE, f"u-{number * 7}")
                began = time.perf_counter()
                upserts.apply([UserChange(key, {"a.income": "arrived"})])
                waits.append(_until_chosen(engine, live.uid, key, began))
        finally:
            stop.set()
            passing.join()
    return _lags(waits, changes)


def _until_chosen(engine: Engine, uid: str, user: str, began: float) -> float:
    """Return the seconds until a delivery is chosen for a user; infinite after 30."""
    query = {"campaign": uid, "user": user, "outgoing.state": "queued"}
    while time.perf_counter() - began < 30:
        if engine.database["enrolments"].find_one(query, {"_id": 1}) is not None:
            return time.perf_counter() - began
        time.sleep(0.005)
    return float("inf")


def many_changes(engine: Engine, campaigns: int, rate: int, seconds: int) -> Lags:
    """Measure P18: `rate` changes a second with `campaigns` campaigns, `NAMED` of which name the changing field.

    The lag is the feed's: from an acknowledged write until the feed's position, polled every 50 ms, covers it.
    """
    engine.clear()
    now = engine.app.clock.campaign_now()
    for number in range(campaigns):
        rule = '{income: "surged"}' if number < NAMED else f"{{orders_count: {{gte: {1_000_000 + number}}}}}"
        record = engine.app.commands.launch(engine.campaign(f"many-{number}", f"all: [{rule}]\n", kind="continuous"))
        engine.app.stores.campaigns.move(record, CampaignState.LIVE, launched_at=now, pass_as_of=now)
    upserts = engine.app.imports(WORKSPACE).upserts
    users = random.Random(3).sample(range(1, engine.app.access_paths.size(WORKSPACE) * 9 // 10), rate * seconds)
    lags: list[float] = []
    step = max(1, rate // 10)
    with engine.feed(), Looker(engine), _Watch(engine, lags) as watch:
        began = time.perf_counter()
        for start in range(0, len(users), step):
            keys = [user_key(WORKSPACE, f"u-{number}") for number in users[start : start + step]]
            upserts.apply([UserChange(key, {"a.income": "surged"}) for key in keys])
            watch.written()
            time.sleep(max(0.0, began + (start + step) / rate - time.perf_counter()))
        engine.settled()
    there = engine.database["enrolments"].count_documents({})
    return Lags(len(users), statistics.median(lags), _p99(lags), len(users) * NAMED - there)


class _Watch:
    """Polls the feed's position, and records how long each write took to be handled."""

    def __init__(self, engine: Engine, lags: list[float]) -> None:
        self._feeds = engine.app.stores.feeds
        self._lags = lags
        self._open: list[tuple[int, float]] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="watch")

    def written(self) -> None:
        """Note that a batch of changes has just been acknowledged."""
        with self._lock:
            self._open.append((self._feeds.now(), time.perf_counter()))

    def _run(self) -> None:
        while not self._stop.wait(0.05) or self._open:
            position = self._feeds.position()
            with self._lock:
                self._lags += [time.perf_counter() - at for target, at in self._open if target <= position]
                self._open = [entry for entry in self._open if entry[0] > position]

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _lags(waits: list[float], changes: int) -> Lags:
    came = [wait for wait in waits if wait != float("inf")]
    return Lags(changes, statistics.median(came), _p99(came), changes - len(came))


def _p99(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
