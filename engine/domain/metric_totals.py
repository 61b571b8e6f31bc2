"""Sums that only rise: what slices and named queries came to since the installation keeps metrics.

They survive the processes that did the work and the deletion of the records they were made from. Times are in seconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from engine.clock import Instant

QUERY_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds (s) of the buckets of a named query: from a read by key to the driver's own time limit."""

TURN_BOUNDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Upper bounds (s) of the buckets of a slice's waits and works: from a free worker to an hour of a closed gate."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """How often something took how long: one count for each bound, then one for what exceeds all; `micros` is the sum.

    The counts are not cumulative. The sum is a whole number of microseconds: a counter that falls by a rounding error
    looks like one that began anew.
    """

    counts: tuple[int, ...]
    micros: int = 0

    @property
    def seconds(self) -> float:
        """The sum in seconds."""
        return self.micros / 1e6

    @property
    def count(self) -> int:
        """The number of cases."""
        return sum(self.counts)

    def plus(self, other: Buckets) -> Buckets:
        """Return the sum of both, which must have the same bounds."""
        pairs = zip(self.counts, other.counts, strict=True)
        return Buckets(tuple(one + two for one, two in pairs), self.micros + other.micros)


def empty(bounds: Sequence[float]) -> Buckets:
    """Return buckets without a case."""
    return Buckets((0,) * (len(bounds) + 1))


def filled(bounds: Sequence[float], cases: Iterable[tuple[float, int]]) -> Buckets:
    """Return the buckets of cases, each as seconds and how often."""
    counts = [0] * (len(bounds) + 1)
    total = 0
    for seconds, count in cases:
        counts[bisect_left(bounds, seconds)] += count
        total += round(seconds * 1e6) * count
    return Buckets(tuple(counts), total)


@dataclass(frozen=True, slots=True)
class QueryTotal:
    """The calls of one named query: how many failed, the documents that they returned, and how long they took."""

    calls: int = 0
    failed: int = 0
    documents: int = 0
    durations: Buckets = field(default_factory=lambda: empty(QUERY_BOUNDS))

    def plus(self, other: QueryTotal) -> QueryTotal:
        """Return the sum of both."""
        return QueryTotal(
            self.calls + other.calls,
            self.failed + other.failed,
            self.documents + other.documents,
            self.durations.plus(other.durations),
        )


@dataclass(frozen=True, slots=True)
class FoldedQueries:
    """The sums of the stretches that are over, by query.

    All stretches last written before `horizon` (system time) are in them, and so are those in `ids`, each with the time
    of its last write.
    """

    horizon: Instant
    ids: Mapping[str, Instant]
    queries: Mapping[str, QueryTotal]


@dataclass(frozen=True, slots=True)
class LaneTotal:
    """The ended slices of one lane: by end state, the users that they evaluated, how long they waited and worked.

    A slice has a wait and a work for each of its turns.
    """

    slices: Mapping[str, int] = field(default_factory=dict)
    users: int = 0
    waits: Buckets = field(default_factory=lambda: empty(TURN_BOUNDS))
    works: Buckets = field(default_factory=lambda: empty(TURN_BOUNDS))


@dataclass(frozen=True, slots=True)
class CampaignCost:
    """What the ended slices of a campaign cost: seconds that workers held them, users evaluated, messages sent."""

    worked: float = 0.0
    users: int = 0
    sent: int = 0


@dataclass(frozen=True, slots=True)
class NamedCost:
    """The cost of a campaign with its names."""

    workspace: str
    campaign: str
    cost: CampaignCost


@dataclass(frozen=True, slots=True)
class FoldedSlices:
    """The sums of the slices that ended up to `until` (MongoDB's clock), by lane, and their whole cost."""

    until: Instant
    lanes: Mapping[str, LaneTotal]
    cost: CampaignCost


@dataclass(frozen=True, slots=True)
class EndedSlice:
    """What the sums need of a slice that has ended: its turns as (wait, work) in seconds."""

    campaign: str
    lane: str
    state: str
    turns: tuple[tuple[float, float], ...]
    worked: float
    users: int
    sent: int
