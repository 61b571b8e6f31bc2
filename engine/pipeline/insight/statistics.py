"""The figures of `tidegate stats`: named queries, batch sizes, and evaluations per message of each campaign."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from hdrh.histogram import HdrHistogram

from engine.clock import Clock, Instant, millis
from engine.decisions.batch_size import Evidence, quantile
from engine.decisions.inactivity_advice import advised
from engine.domain.campaign import CampaignRecord
from engine.domain.keys import enrolment_prefix
from engine.domain.work import WindowCost
from engine.pipeline.campaigns.compiled_cache import CampaignCache
from engine.query_metrics import DIGITS, LONGEST, Figure, Stretch, Worst

SAMPLED: Final = 20_000
"""Enrolments that the inactivity advice reads per campaign: the first by hash, a random sample of its users."""


@dataclass(frozen=True, slots=True)
class QueryStatistics:
    """One named query over all processes; durations are in seconds, each within 1 %, the worst exact."""

    name: str
    calls: int
    failed: int
    documents: int
    median: float
    p95: float
    p99: float
    worst: Worst


@dataclass(frozen=True, slots=True)
class SizeStatistics:
    """One candidate of one query's batch size over all processes.

    `median` and `p95` are seconds per user in the latest batches; `chosen` out of `processes` use this size now.
    """

    query: str
    size: int
    batches: int
    users: int
    median: float | None
    p95: float | None
    chosen: int
    processes: int


@dataclass(frozen=True, slots=True)
class CampaignStatistics:
    """The cost of a campaign's decided runs: those of the last week, and its launch.

    The runs evaluated `evaluated` users and chose `chosen` messages, including those of the holdout. `window` is the
    campaign's inactivity window; `advice` is the window that its enrolments suggest
    (`engine.decisions.inactivity_advice`; None: too little evidence), from `stretches` quiet stretches.
    `windows` is the cost under each window that was in force during the last week.
    """

    record: CampaignRecord
    evaluated: int
    chosen: int
    window: timedelta
    advice: timedelta | None
    stretches: int
    windows: tuple[WindowCost, ...] = ()

    @property
    def each(self) -> float | None:
        """Return users evaluated per message; None if no message was chosen."""
        return self.evaluated / self.chosen if self.chosen else None


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """Users that readers of the user cache got, and how many of them had to be loaded from MongoDB."""

    read: int
    loaded: int

    @property
    def hit_rate(self) -> float | None:
        """Return the share of users that came from the cache; None if nobody was read.

        Never negative: a process that died between a load and the measurement of its read may have recorded more loads
        than reads.
        """
        return max(0.0, 1 - self.loaded / self.read) if self.read else None


class StretchReads(Protocol):
    """The measurements that processes have written."""

    def since(self, earliest: Instant) -> list[Stretch]:
        """Return the stretches written since `earliest`."""


class RunResults(Protocol):
    """The results of decided runs."""

    def results_of(self, campaigns: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        """Return the summed results of the decided runs of each campaign, by uid."""

    def costs_by_window(self, campaigns: Sequence[str]) -> Mapping[str, Sequence[WindowCost]]:
        """Return what the decided runs of each campaign cost under each inactivity window, by uid."""


class QuietStretches(Protocol):
    """Quiet stretches in the enrolments."""

    def quiet_stretches(self, prefix: str, limit: int) -> dict[int, int]:
        """Return the number of quiet stretches by length in days, rounded up."""


class CampaignReads(Protocol):
    """All campaigns."""

    def everything(self) -> list[CampaignRecord]:
        """Return every campaign, by workspace and name."""


class Statistics:
    """Combines the measurements with the results of runs."""

    def __init__(
        self,
        stretches: StretchReads,
        runs: RunResults,
        counts: QuietStretches,
        campaigns: CampaignReads,
        campaign_cache: CampaignCache,
        clock: Clock,
    ) -> None:
        self._stretches = stretches
        self._runs = runs
        self._counts = counts
        self._campaigns = campaigns
        self._campaign_cache = campaign_cache
        self._clock = clock

    def measured(self, within: timedelta) -> list[Stretch]:
        """Return the stretches written within the last `within`."""
        return self._stretches.since(self._clock.system_now() - millis(within))

    def campaigns(self, limit: int, workspace: str | None = None) -> list[CampaignStatistics]:
        """Return up to `limit` campaigns, most evaluations per message first; before them, those without a message."""
        records = {
            record.uid: record
            for record in self._campaigns.everything()
            if workspace is None or record.workspace == workspace
        }
        sums = self._runs.results_of(list(records))
        ranked = [
            (records[uid], counters.get("users", 0), _messages(counters))
            for uid, counters in sums.items()
            if uid in records
        ]
        ranked.sort(key=lambda row: (row[1] / row[2] if row[2] else float("inf"), row[1]), reverse=True)
        return [self._campaign(*row) for row in ranked[:limit]]

    def _campaign(self, record: CampaignRecord, evaluated: int, chosen: int) -> CampaignStatistics:
        quiet = self._counts.quiet_stretches(enrolment_prefix(record.workspace, record.uid), SAMPLED)
        messages = self._campaign_cache.of(record).compiled.messages
        longest = max((message.wait for message in messages), default=timedelta(0))
        return CampaignStatistics(
            record,
            evaluated,
            chosen,
            self._campaign_cache.profile(record).inactivity,
            advised(quiet, longest),
            sum(quiet.values()),
            tuple(self._runs.costs_by_window([record.uid]).get(record.uid, ())),
        )


def _messages(results: Mapping[str, int]) -> int:
    """Return the number of chosen messages, including the holdout's: evaluations yield those as well."""
    return results.get("chosen", 0) + results.get("holdout", 0)


def queries(stretches: Iterable[Stretch]) -> list[QueryStatistics]:
    """Merge the named queries of all stretches, by name."""
    parts: dict[str, list[Figure]] = {}
    for stretch in stretches:
        for figure in stretch.figures:
            parts.setdefault(figure.name, []).append(figure)
    return [_merged(name, figures) for name, figures in sorted(parts.items())]


def cached(statistics: Iterable[QueryStatistics]) -> CacheStatistics:
    """Return the user cache's figures from the named queries."""
    documents = {query.name: query.documents for query in statistics}
    return CacheStatistics(documents.get("cache.read", 0), documents.get("cache.load", 0))


def _merged(name: str, figures: Sequence[Figure]) -> QueryStatistics:
    durations = HdrHistogram(1, LONGEST, DIGITS)
    for figure in figures:
        durations.decode_and_add(figure.durations)
    worst = max((part.worst for part in figures), key=lambda worst: worst.seconds)
    # A histogram returns the upper edge of a bucket, which may lie a little above the longest measured duration.
    median, p95, p99 = (min(durations.get_value_at_percentile(share) / 1e6, worst.seconds) for share in (50, 95, 99))
    calls, failed, documents = (sum(column) for column in zip(*map(_sums, figures), strict=True))
    return QueryStatistics(name, calls, failed, documents, median, p95, p99, worst)


def _sums(figure: Figure) -> tuple[int, int, int]:
    return figure.calls, figure.failed, figure.documents


def sizes(stretches: Sequence[Stretch]) -> list[SizeStatistics]:
    """Merge the batch tuners' evidence of all processes.

    Only each writer's latest stretch counts, because it includes the earlier evidence.
    """
    latest = {stretch.writer: stretch for stretch in stretches}
    parts: dict[tuple[str, int], list[Evidence]] = {}
    for stretch in latest.values():
        for query, evidence in stretch.tuned.items():
            for batches in evidence:
                parts.setdefault((query, batches.size), []).append(batches)
    return [_size(query, size, parts[query, size]) for query, size in sorted(parts)]


def _size(query: str, size: int, evidence: Sequence[Evidence]) -> SizeStatistics:
    recent = [seconds for point in evidence for seconds in point.recent]
    return SizeStatistics(
        query,
        size,
        sum(point.batches for point in evidence),
        sum(point.users for point in evidence),
        quantile(recent, 0.5),
        quantile(recent, 0.95),
        sum(point.chosen for point in evidence),
        len(evidence),
    )
