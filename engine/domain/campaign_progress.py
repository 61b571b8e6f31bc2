"""How far a campaign is: cheap figures from its runs and slices, and exact counts as of a moment."""

from __future__ import annotations

from dataclasses import dataclass

from engine.clock import Instant
from engine.domain.counts import CampaignCounts


@dataclass(frozen=True, slots=True)
class Tally:
    """The exact counts of a campaign at `at` (system time), as its enrolments had them; it took `took` seconds.

    `final` says that the campaign has ended and nothing of it can change any more.
    """

    counts: CampaignCounts
    at: Instant
    took: float
    final: bool = False


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
