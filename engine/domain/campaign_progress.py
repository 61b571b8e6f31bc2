"""How far a campaign is: cheap figures from its runs and slices, and exact counts as of a moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.clock import Instant
from engine.domain.counts import CampaignCounts, FailureCount


@dataclass(frozen=True, slots=True)
class Tally:
    """The exact counts of a campaign at `at` (system time), as its enrolments had them; it took `took` seconds.

    `final` says that the campaign has ended and nothing of it can change any more. `closed` says that the campaign's
    record was closed when the count began, and `ending` is its number of endings at that time: a replay that reopens a
    campaign leads to another ending. `failures` are the failed deliveries by reason.
    """

    counts: CampaignCounts
    at: Instant
    took: float
    final: bool = False
    closed: bool = False
    ending: int = 0
    failures: tuple[FailureCount, ...] = ()

    @property
    def head(self) -> TallyHead:
        """When and of what the tally is."""
        return TallyHead(self.at, self.took, self.final, self.closed, self.ending)


@dataclass(frozen=True, slots=True)
class TallyHead:
    """When a tally was made, and of what state of the campaign: the fields of `Tally` without its counts."""

    at: Instant
    took: float
    final: bool = False
    closed: bool = False
    ending: int = 0


@dataclass(frozen=True, slots=True)
class WorkspaceTotals:
    """The sums over the tallies of one workspace; `deliveries` counts by (channel, outcome)."""

    entered: int
    active: int
    holdout: int
    converted: int
    converted_holdout: int
    deliveries: Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class TallyTotals:
    """The sums over all tallies, by workspace.

    `campaigns` counts the tallies, `unfit` those whose counts do not add up. `oldest` is when the oldest tally of a
    campaign that may still change was made (system time; None: there is none).
    """

    workspaces: Mapping[str, WorkspaceTotals]
    campaigns: int
    unfit: int
    oldest: Instant | None


@dataclass(frozen=True, slots=True)
class Progress:
    """What the current run or launch of a campaign has done so far, from the records of its slices alone.

    `decided` of `of` hash ranges or users are evaluated (`share`, 0 to 1; None before the run is cut). `chosen` and
    `sent` count messages; `rate` is messages sent a second during the last seconds, `left` the time (s) until the
    sending ends at this rate (None: unknown, or nothing is under way). `phase` is one word: `waiting`, `deciding`,
    `sending`, `resting`, `paused`, `ended`.
    """

    phase: str
    share: float | None
    evaluated: int
    chosen: int
    sent: int
    failed: int
    rate: float
    left: float | None
    at: Instant
