"""Choose the lane of a slice: a pure function of the policies and a few facts of its campaign.

The engine asks when it enqueues a slice, and again when a worker receives it, so that an edit of the policies moves
slices that are already queued. Only lanes of the policies can result: a typo cannot fill a queue that nobody serves.
"""

from __future__ import annotations

from engine.policy.models import Cost, LaneKind
from engine.policy.policyset import CampaignFacts, PolicySet

SUSPECT = "suspect"
"""The lane of slices that may have killed a worker; it decides and delivers, one at a time."""


def route(policies: PolicySet, facts: CampaignFacts, *, suspect: bool, kind: LaneKind) -> str:
    """Return the lane of a slice of this campaign.

    A suspect goes to its own lane whatever the profile says, so that a process that dies there died of its own slice. A
    delivering slice takes the profile's `deliver_lane`. A deciding slice takes `slow_lane` if the engine must read
    events to judge the campaign's predicates, or has measured that the campaign is slow; otherwise it takes `lane`.
    Raises `ValueError` for the engine's own messages, which are not slices.
    """
    if kind is LaneKind.INTERNAL:
        raise ValueError("only slices are routed: the engine's own messages keep to their lanes")
    if suspect:
        return SUSPECT
    profile = policies.profile_for(facts)
    if kind is LaneKind.DELIVER:
        return profile.deliver_lane
    return profile.slow_lane if facts.cost is Cost.SLOW or facts.slowed else profile.lane
