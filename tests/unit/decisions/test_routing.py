"""The lane that carries a slice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.decisions.routing import route
from engine.policy.load import load_policies
from engine.policy.models import CampaignKind, Cost, LaneKind
from engine.policy.policyset import CampaignFacts

POLICIES = load_policies(Path(__file__).parents[3] / "policies")
FACTS = CampaignFacts("shop", "winback", CampaignKind.CONTINUOUS, Cost.QUICK)


@pytest.mark.parametrize(
    ("facts", "suspect", "kind", "lane"),
    [
        (FACTS, False, LaneKind.DECIDE, "fast"),
        (FACTS, False, LaneKind.DELIVER, "deliver"),
        (FACTS, True, LaneKind.DECIDE, "suspect"),
        (FACTS, True, LaneKind.DELIVER, "suspect"),
        (replace(FACTS, cost=Cost.SLOW), False, LaneKind.DECIDE, "slow"),
        (replace(FACTS, cost=Cost.SLOW), False, LaneKind.DELIVER, "deliver"),
        (replace(FACTS, slowed=True), False, LaneKind.DECIDE, "slow"),
        (replace(FACTS, cost=Cost.SLOW, profile="lifecycle"), False, LaneKind.DECIDE, "slow"),
        (replace(FACTS, kind=CampaignKind.ONE_OFF), False, LaneKind.DECIDE, "slow"),
    ],
)
def test_a_slice_travels_in_the_lane_of_its_profile(
    facts: CampaignFacts, suspect: bool, kind: LaneKind, lane: str
) -> None:
    assert route(POLICIES, facts, suspect=suspect, kind=kind) == lane


def test_routing_returns_only_lanes_of_the_policies() -> None:
    lanes = {
        route(POLICIES, replace(FACTS, cost=cost, slowed=slowed, profile=profile), suspect=suspect, kind=kind)
        for cost in Cost
        for slowed in (True, False)
        for suspect in (True, False)
        for kind in (LaneKind.DECIDE, LaneKind.DELIVER)
        for profile in (None, "gone", *POLICIES.profiles)
    }
    assert lanes <= set(POLICIES.lanes)


def test_the_engines_own_messages_are_not_routed() -> None:
    with pytest.raises(ValueError, match="only slices are routed"):
        route(POLICIES, FACTS, suspect=False, kind=LaneKind.INTERNAL)
