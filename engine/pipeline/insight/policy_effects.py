"""What an edit of the policies would change: values, campaigns, lanes, fleets, and what only a restart brings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.decisions.routing import route
from engine.policy.difference import Difference, Governed, differences, governed
from engine.policy.effects import Moved, ServedBy, idle_fleets, moved, restarts, served
from engine.policy.models import LaneKind
from engine.policy.policyset import CampaignFacts, PolicySet


@dataclass(frozen=True, slots=True)
class Effects:
    """The effects of an edit.

    `changes` are the values that differ, `moves` the campaigns that get another profile or lane, `lanes` those that
    other fleets serve, `idle` the fleets that would serve no campaign, `restart` what only a restart brings into force.
    """

    changes: Sequence[Difference]
    moves: Sequence[Moved]
    lanes: Sequence[ServedBy]
    idle: Sequence[str]
    restart: Sequence[str]


def effects(before: PolicySet, after: PolicySet, campaigns: Iterable[CampaignFacts]) -> Effects:
    """Return the effects of an edit on these campaigns."""
    facts = list(campaigns)
    old = [governed_by(before, one) for one in facts]
    new = [governed_by(after, one) for one in facts]
    return Effects(
        differences(before, after),
        moved(old, new),
        served(before, after),
        idle_fleets(after, new),
        restarts(before, after),
    )


def governed_by(policies: PolicySet, facts: CampaignFacts) -> Governed:
    """Return the effect of policies on a campaign, with the lanes of its slices."""
    lane = route(policies, facts, suspect=False, kind=LaneKind.DECIDE)
    return governed(policies, facts, lane, route(policies, facts, suspect=False, kind=LaneKind.DELIVER))
