"""Choose the slices that a lane takes next: by urgency, and within it by fair shares. Pure.

The dispatcher chooses by it, and `policy simulate` forecasts by it, so that a forecast follows the same rules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, MutableMapping, Sequence
from typing import TypeAlias

from engine.decisions.fairness import FairShares
from engine.domain.work import Waiting
from engine.policy.models import Profile, Urgency
from engine.policy.policyset import PolicySet

LaneShares: TypeAlias = MutableMapping[tuple[str, Urgency], FairShares]
"""The shares of each urgency of each lane; a missing one begins when it is asked for, as in a `defaultdict`."""


def next_slices(
    shares: LaneShares,
    lane: str,
    pieces: Sequence[Waiting],
    room: int,
    *,
    policies: PolicySet,
    profile: Callable[[str], Profile],
) -> list[str]:
    """Return the ids of up to `room` of the claimable `pieces` of a lane, the most urgent first; charge their turns.

    `profile` returns the profile that governs a campaign (uid).
    """
    classes: dict[Urgency, list[Waiting]] = defaultdict(list)
    for slice_ in pieces:
        classes[profile(slice_.campaign).urgency].append(slice_)
    picked: list[str] = []
    for urgency in Urgency:
        if urgency in classes and len(picked) < room:
            picked += _pick(shares, (lane, urgency), classes[urgency], room - len(picked), policies, profile=profile)
    return picked


def _pick(
    shares: LaneShares,
    share: tuple[str, Urgency],
    pieces: Sequence[Waiting],
    room: int,
    policies: PolicySet,
    *,
    profile: Callable[[str], Profile],
) -> list[str]:
    """Pick slices of one lane and urgency. Where only one campaign is at work, nothing is shared or charged."""
    queues: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for slice_ in pieces:
        queues[slice_.workspace][slice_.campaign].append(slice_.id)
    campaigns = {slice_.campaign for slice_ in pieces}
    if len(campaigns | shares[share].at_work) == 1:
        del shares[share]
        return [slice_.id for slice_ in pieces[:room]]
    return shares[share].pick(
        queues,
        room,
        weights={campaign: profile(campaign).weight for campaign in campaigns},
        workspace_weights={workspace: policies.weight_of(workspace) for workspace in queues},
        seconds={slice_.id: slice_.worked / 1000 for slice_ in pieces},
    )
