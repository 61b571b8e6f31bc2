"""Which campaign to count next, so that counting takes a bounded share of the time (`docs/metrics.md`, "Tallies").

A count reads every enrolment of a campaign, seconds for a million. So after a count the clock rests 49 times as long as
the count took, whatever campaign comes next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from engine.clock import Instant
from engine.domain.campaign_progress import TallyHead

SHARE: Final = 0.02
"""The largest share of the time that counting takes in the long run."""

YOUNG: Final = 10.0
"""Seconds for which a tally is fresh enough, however little it costs."""

LEAST_COST: Final = 0.1
"""Seconds added to what a count took, to compare ages: a campaign that takes 2 ms is not counted 2,000 times as often
as one that takes 4 s."""

OLD_EVERY: Final = 4
"""Every so many counts, one is of a campaign that ended before it was ever counted (an upgrade)."""


@dataclass(frozen=True, slots=True)
class Countable:
    """What of a campaign's record decides whether it is counted: `closed` if it has ended for good, after `ending`."""

    closed: bool
    ending: int


def rest(took: float) -> float:
    """Return how long (s) to rest after a count that took `took` seconds."""
    return took * (1 / SHARE - 1)


def must_count_at_once(campaign: Countable, head: TallyHead | None) -> bool:
    """Whether a campaign has closed since its last tally: its final count does not wait."""
    return campaign.closed and head is not None and not (head.closed and head.ending == campaign.ending)


def is_final(campaign: Countable, head: TallyHead | None) -> bool:
    """Whether the tally of a campaign is final: a replay that reopened it would have led to another ending."""
    return campaign.closed and head is not None and head.final and head.ending == campaign.ending


def next_tally(
    campaigns: Mapping[str, Countable], heads: Mapping[str, TallyHead], now: Instant, *, rested: bool, turn: int
) -> str | None:
    """Return the uid of the campaign to count now, or None.

    A campaign that has closed since its last tally comes first, even without `rested` (the rest since the last count
    is over). Of the others the most outdated comes first, by its age measured in what its count costs. Campaigns that
    closed before their first tally get every `OLD_EVERY`th `turn`, and any turn that nobody else needs.
    """
    if not rested:
        return next((uid for uid, one in campaigns.items() if must_count_at_once(one, heads.get(uid))), None)
    outdated, worst, old = None, 0.0, None
    for uid, campaign in campaigns.items():
        head = heads.get(uid)
        if head is None:
            if campaign.closed:
                old = old or uid
                continue
            outdatedness = float("inf")
        elif must_count_at_once(campaign, head):
            return uid
        elif is_final(campaign, head) or now - head.at < YOUNG * 1e3:
            continue
        else:
            outdatedness = (now - head.at) / 1e3 / (head.took + LEAST_COST)
        if outdatedness > worst:
            outdated, worst = uid, outdatedness
    if old is not None and (outdated is None or turn % OLD_EVERY == 0):
        return old
    return outdated
