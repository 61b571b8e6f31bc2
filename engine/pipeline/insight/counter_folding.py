"""Keep the sums that only rise: add what slices and stretches came to, each once, before their records are deleted.

A stretch is over when nobody has written it for `SETTLED`, as long as this process has watched. Its sums then move
into `MetricTotals`. Who reads the sums adds the stretches that are not in them yet, so a counter neither falls nor
jumps when a stretch moves (`docs/decisions/0027-counters-are-folded-by-the-clock.md`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from hdrh.histogram import HdrHistogram

from engine.clock import Clock, Instant
from engine.domain.metric_totals import (
    QUERY_BOUNDS,
    TURN_BOUNDS,
    CampaignCost,
    EndedSlice,
    FoldedQueries,
    LaneTotal,
    QueryTotal,
    filled,
)
from engine.pipeline.ports.tallies import EndedSlices, Stretches, TallyStore, TotalStore
from engine.query_metrics import DIGITS, LONGEST, Figure, Stretch

EVERY: Final = 15.0
"""Seconds between two additions of ended slices."""

QUERIES_EVERY: Final = 60.0
"""Seconds between two looks for stretches that are over."""

SETTLED: Final = 300.0
"""Seconds without a write after which a stretch is over: its process writes every 10 s while it measures anything,
and begins another stretch when it has measured nothing for a minute."""

BLIND: Final = 150.0
"""Seconds without a look after which watching begins anew: while MongoDB was away, no process could write either."""

NAMED_FOR: Final = 7_200_000
"""Milliseconds for which the sums name the stretches that are in them, so that a late write adds none twice."""

MOST: Final = 200
"""Stretches that one step adds."""


@dataclass(frozen=True, slots=True)
class _Watched:
    until: Instant
    since: float


class CounterFolding:
    """Adds to the sums, in the clock's process."""

    def __init__(
        self, *, totals: TotalStore, slices: EndedSlices, tallies: TallyStore, stretches: Stretches, clock: Clock
    ) -> None:
        self._totals = totals
        self._slices = slices
        self._tallies = tallies
        self._stretches = stretches
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._looked_at = float("-inf")
        self._slices_at = self._queries_at = float("-inf")

    def step(self) -> bool:
        """Add what has ended, if it is time for it; return False, because nothing waits for it."""
        now = self._clock.monotonic()
        if now - self._slices_at >= EVERY:
            self._slices_at = now
            self.fold_slices()
        if now - self._queries_at >= QUERIES_EVERY:
            self._queries_at = now
            self.fold_queries()
        return False

    def fold_slices(self) -> bool:
        """Add the slices that have ended since the last step; return False if another clock did it meanwhile."""
        after, until = self._totals.next_slices()
        ended = self._slices.ended_between(after, until)
        costs: dict[str, CampaignCost] = {}
        for one in ended:
            cost = costs.get(one.campaign, CampaignCost())
            costs[one.campaign] = _plus(cost, CampaignCost(one.worked, one.users, one.sent))
        self._tallies.charge(costs, until)
        whole = CampaignCost()
        for cost in costs.values():
            whole = _plus(whole, cost)
        return self._totals.fold_slices(until, lane_totals(ended), whole)

    def fold_queries(self) -> int:
        """Add the stretches that are over; return how many."""
        folded = self._totals.queries()
        now, at = self._clock.system_now(), self._clock.monotonic()
        if folded is None:
            self._totals.begin_queries(now)
            return 0
        fresh = [one for one in self._stretches.since(folded.horizon) if one.id not in folded.ids]
        before = self._watched if at - self._looked_at <= BLIND else {}
        self._watched, self._looked_at = {}, at
        over: list[Stretch] = []
        for stretch in fresh:
            seen = before.get(stretch.id)
            if seen is None or seen.until != stretch.until:
                seen = _Watched(stretch.until, at)
            self._watched[stretch.id] = seen
            if at - seen.since >= SETTLED and len(over) < MOST:
                over.append(stretch)
        ids = {stretch.id: stretch.until for stretch in over}
        left = [stretch.until for stretch in fresh if stretch.id not in ids]
        horizon = max(folded.horizon, min([now - NAMED_FOR, *left]))
        if not ids and horizon - folded.horizon < NAMED_FOR:
            return 0
        done = self._totals.fold_queries(folded.horizon, ids, summed(over), horizon)
        return len(ids) if done else 0


def _plus(one: CampaignCost, other: CampaignCost) -> CampaignCost:
    return CampaignCost(one.worked + other.worked, one.users + other.users, one.sent + other.sent)


def lane_totals(ended: Iterable[EndedSlice]) -> dict[str, LaneTotal]:
    """Return the sums of ended slices by lane."""
    by_lane: dict[str, list[EndedSlice]] = {}
    for one in ended:
        by_lane.setdefault(one.lane, []).append(one)
    return {
        lane: LaneTotal(
            Counter(one.state for one in ended_there),
            sum(one.users for one in ended_there),
            filled(TURN_BOUNDS, ((wait, 1) for one in ended_there for wait, _ in one.turns)),
            filled(TURN_BOUNDS, ((work, 1) for one in ended_there for _, work in one.turns)),
        )
        for lane, ended_there in by_lane.items()
    }


def query_total(figure: Figure) -> QueryTotal:
    """Return a query's figure with its durations in the buckets of the metrics."""
    histogram = HdrHistogram(1, LONGEST, DIGITS)
    histogram.decode_and_add(figure.durations)
    cases = [
        (item.value_iterated_to / 1e6, item.count_added_in_this_iter_step) for item in histogram.get_recorded_iterator()
    ]
    return QueryTotal(figure.calls, figure.failed, figure.documents, filled(QUERY_BOUNDS, cases))


def summed(stretches: Iterable[Stretch]) -> dict[str, QueryTotal]:
    """Return the sums of stretches by query."""
    sums: dict[str, QueryTotal] = {}
    for stretch in stretches:
        for figure in stretch.figures:
            sums[figure.name] = sums.get(figure.name, QueryTotal()).plus(query_total(figure))
    return sums


class QueryCounters:
    """Reads the sums of all named queries: those that are kept, and the stretches that are still written."""

    def __init__(self, totals: TotalStore, stretches: Stretches) -> None:
        self._totals = totals
        self._stretches = stretches
        self._known: dict[str, tuple[Instant, Mapping[str, QueryTotal]]] = {}

    def read(self) -> Mapping[str, QueryTotal] | None:
        """Return the sums by query; None before the first clock began them.

        The kept sums are read first: a stretch that moves into them meanwhile still counts as not in them.
        """
        folded = self._totals.queries()
        if folded is None:
            return None
        sums = dict(folded.queries)
        for own in self._open(folded).values():
            for name, total in own.items():
                sums[name] = sums.get(name, QueryTotal()).plus(total)
        return sums

    def _open(self, folded: FoldedQueries) -> Mapping[str, Mapping[str, QueryTotal]]:
        """Return the sums of the stretches that are not kept yet; those that did not change are not decoded again."""
        known, self._known = self._known, {}
        for stretch in self._stretches.since(folded.horizon):
            if stretch.id in folded.ids:
                continue
            had = known.get(stretch.id)
            same = had is not None and had[0] == stretch.until
            self._known[stretch.id] = had if had is not None and same else (stretch.until, summed([stretch]))
        return {name: sums for name, (_, sums) in self._known.items()}
