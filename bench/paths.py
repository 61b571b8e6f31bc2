"""P8, P9: access paths side by side, and the planner's choice against the best of them."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Final

import yaml

from bench.ours import Engine
from engine.domain.work import AccessPath

TENTH_PERCENT: Final = """\
all:
  - orders_count: {gte: 100}
  - orders_value: {gte: 5000}
  - age: "45-54"
"""
"""About one user in a thousand of `bench.population` (1,226 of a million): P8."""

INDEXED: Final = [("w", 1), ("g.orders_value", 1), ("_id", 1)]
"""The index that serves some of the predicates of P9, and none of P8."""


def predicates() -> list[str]:
    """Return thirty audiences over real fields, from almost no users to almost all."""
    trees: list[dict[str, object]] = []
    trees += [{"orders_value": {"gte": value}} for value in (10_000, 6_000, 4_000, 3_000, 2_000, 1_000, 300)]
    trees += [{"orders_count": {"gte": count}} for count in (250, 180, 120, 80, 50, 20, 5)]
    trees += [{"last_order_at": {"older_than": f"{days}d"}} for days in (150, 90, 60, 30, 14, 3)]
    trees += [{"age": group} for group in ("19-24", "35-44", "45-54")]
    tail: list[dict[str, object]] = [
        {"all": [{"orders_count": {"gte": 20}}, {"age": group}]} for group in ("35-44", "65+")
    ]
    tail += [
        {"all": [{"orders_value": {"gte": 2_000}}, {"last_order_at": {"older_than": "14d"}}]},
        {"all": [{"orders_value": {"gte": 500}}], "none": [{"age": "45-54"}]},
        {"none": [{"unsubscribed": True}]},
        {"any": [{"age": "19-24"}, {"orders_count": {"gte": 200}}]},
        {"all": [{"income": "250K+"}]},
    ]
    trees += tail
    return [yaml.safe_dump(tree if {"all", "any", "none"} & set(tree) else {"all": [tree]}) for tree in trees]


@dataclass(frozen=True, slots=True)
class Tried:
    """One audience: its candidates, the seconds that finding them took on each path, and the planner's choice."""

    audience: str
    matches: int
    seconds: dict[AccessPath, float]
    chosen: AccessPath

    @property
    def best(self) -> AccessPath:
        """The quickest path."""
        return min(self.seconds, key=lambda path: self.seconds[path])

    @property
    def regret(self) -> float:
        """The chosen path's seconds over the best one's, minus one."""
        return self.seconds[self.chosen] / self.seconds[self.best] - 1


def find(engine: Engine, audience: str, path: AccessPath, number: int) -> tuple[float, int]:
    """Return the seconds that a path takes to find all candidates, and their number.

    It reads and tests the users, but nobody enters.
    """
    record = engine.campaign(f"p{number}-{path.value}", audience)
    entry = engine.app.campaign_cache.of(record)
    candidates = entry.compiled.candidates(None, engine.app.clock.campaign_now())
    began = time.perf_counter()
    count = engine.found(entry, candidates, path)
    return time.perf_counter() - began, count


def planner(engine: Engine, rounds: int) -> list[Tried]:
    """Measure P9: the median of every audience on every path that can serve it, and the planner's choice.

    The planner chooses by the rates measured so far.
    """
    results: list[Tried] = []
    for number, audience in enumerate(predicates()):
        record = engine.campaign(f"p{number}", audience)
        entry = engine.app.campaign_cache.of(record)
        candidates = entry.compiled.candidates(None, engine.app.clock.campaign_now())
        chosen = engine.app.access_paths.choose(entry, candidates)
        seconds: dict[AccessPath, float] = {}
        matches = 0
        for path in (estimate.path for estimate in chosen.others if estimate.possible):
            took = [find(engine, audience, path, number) for _ in range(rounds)]
            seconds[path] = statistics.median(duration for duration, _ in took)
            matches = took[0][1]
        results.append(Tried(audience, matches, seconds, chosen.path))
    return results


def learn(engine: Engine) -> None:
    """Let runs on every path measure the rates, as in production."""
    for audience in predicates()[::6]:
        for path in (AccessPath.SCAN, AccessPath.CACHE, AccessPath.ELASTIC, AccessPath.INDEX):
            engine.clear()
            run = engine.launch(engine.campaign("learn", audience), path)
            with engine.feed():
                engine.work(run)


def selective(engine: Engine, rounds: int) -> tuple[int, dict[AccessPath, float]]:
    """Measure P8: the number of candidates of a selective audience, and the seconds to find them by path.

    The seconds are medians after one warm-up.
    """
    results: dict[AccessPath, list[float]] = {}
    counts: set[int] = set()
    for _ in range(rounds + 1):
        for number, path in enumerate((AccessPath.ELASTIC, AccessPath.CACHE, AccessPath.SCAN)):
            took, count = find(engine, TENTH_PERCENT, path, 900 + number)
            results.setdefault(path, []).append(took)
            counts.add(count)
    assert len(counts) == 1, "every path finds the same"
    return counts.pop(), {path: statistics.median(took[1:]) for path, took in results.items()}
