"""Exact counts of campaigns as of a moment, and sums that only rise."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from engine.clock import Instant
from engine.domain.campaign_progress import Tally, TallyHead, TallyTotals
from engine.domain.counts import CountedPage
from engine.domain.metric_totals import (
    CampaignCost,
    EndedSlice,
    FoldedQueries,
    FoldedSlices,
    LaneTotal,
    NamedCost,
    QueryTotal,
)
from engine.query_metrics import Stretch


class CountPages(Protocol):
    """Count the enrolments of a campaign page by page."""

    def page(self, prefix: str, after: str, limit: int) -> CountedPage: ...


class TallyReads(Protocol):
    """Read tallies."""

    def of(self, uids: Collection[str]) -> dict[str, Tally]: ...
    def totals(self) -> TallyTotals: ...
    def dearest(self, limit: int) -> list[NamedCost]: ...


class TallyStore(TallyReads, Protocol):
    """Read and write tallies."""

    def heads(self) -> dict[str, TallyHead]: ...
    def charge(self, costs: Mapping[str, CampaignCost], until: Instant) -> None: ...
    def write(
        self, uid: str, workspace: str, campaign: str, tally: Tally, channels: Mapping[str, str], *, unfit: bool
    ) -> None: ...


class TotalReads(Protocol):
    """Read the sums that only rise."""

    def queries(self) -> FoldedQueries | None: ...
    def slices(self) -> FoldedSlices | None: ...


class TotalStore(TotalReads, Protocol):
    """Read the sums that only rise, and add to them."""

    def begin_queries(self, horizon: Instant) -> None: ...
    def fold_queries(
        self, horizon: Instant, ids: Mapping[str, Instant], sums: Mapping[str, QueryTotal], before: Instant
    ) -> bool: ...
    def next_slices(self) -> tuple[Instant, Instant]: ...
    def fold_slices(self, until: Instant, lanes: Mapping[str, LaneTotal], cost: CampaignCost) -> bool: ...


class EndedSlices(Protocol):
    """Read slices by when they ended."""

    def ended_between(self, after: Instant, until: Instant) -> list[EndedSlice]: ...


class Stretches(Protocol):
    """Read what processes have measured."""

    def since(self, earliest: Instant) -> Sequence[Stretch]: ...
