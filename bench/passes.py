"""P1, P1b, P1c, P2, P11: a full pass over all users, in every way, side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.audiences import AUDIENCES, node
from bench.competent import CompetentWay
from bench.measure import Rounds, Way, side_by_side
from bench.naive import NaiveWay
from bench.ours import Engine, OursWay
from bench.population import AS_OF, WORKSPACE
from engine.domain.keys import HIGHEST
from engine.domain.work import AccessPath
from engine.predicate.compiled import compile_predicate
from engine.predicate.parse import parse_predicate


@dataclass(frozen=True, slots=True)
class Passes:
    """The rounds of every way over one audience, the floor, and a worker's memory in MiB (before a pass, peak)."""

    rounds: list[Rounds]
    floor: float
    memory: tuple[float, float]


def compare(engine: Engine, sample: Sequence[str], audience: str, rounds: int) -> Passes:
    """Compare all ways over one audience. Raises `AssertionError` if they do not find the same users of the sample."""
    database = engine.database
    engine.warm()
    ours = OursWay(engine, AUDIENCES[audience], AccessPath.CACHE)
    scan = OursWay(engine, AUDIENCES[audience], AccessPath.SCAN)
    naive = NaiveWay(database, sample, AUDIENCES[audience], AS_OF)
    competent = CompetentWay(database, sample, AUDIENCES[audience], AS_OF)
    sides: list[Way] = [naive, competent, scan, ours]
    results = side_by_side(database, sides, rounds)
    floor = statistics.median(_floor(engine, audience) for _ in range(rounds))
    expected = set(sample)
    entered = naive.entered()
    assert competent.entered() == entered, "the competent way found different users"
    assert ours.entered() & expected == entered, "our way found different users"
    return Passes(results, floor, engine.memory(AUDIENCES[audience]))


def _floor(engine: Engine, audience: str) -> float:
    """Return users per second of the parts in sequence: reading and decoding every row, then the generated test."""
    catalogue = engine.app.campaign_cache.catalogue(WORKSPACE)
    compiled = compile_predicate(parse_predicate(node(AUDIENCES[audience]), catalogue), catalogue)
    candidates = compiled.candidates(None, AS_OF)
    cache = engine.app.cached_users
    assert cache is not None
    scan = cache.scan(WORKSPACE, "0", HIGHEST, compiled.fields, catalogue)
    assert scan is not None
    users = 0
    began = time.perf_counter()
    for batch in scan:
        candidates.living(batch.rows, AS_OF)
        users += len(batch.rows)
    return users / (time.perf_counter() - began)
