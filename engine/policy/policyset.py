"""One whole, valid set of policies for every process, replaced as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from engine.errors import NotFound
from engine.policy.models import CampaignKind, Cost, Fleet, Gate, Lane, LaneKind, Lanes, Matches, Profile, Rate, Share

DEFAULT: Final = "default"
"""The profile of a campaign that no other profile matches."""


@dataclass(frozen=True, slots=True)
class CampaignFacts:
    """The facts about a campaign that routing and profiles need.

    `profile` is the profile that the campaign names; `slowed` says whether it was measured to be slow (`slow_when`).
    """

    workspace: str
    campaign: str
    kind: CampaignKind
    cost: Cost
    profile: str | None = None
    slowed: bool = False


@dataclass(frozen=True)
class PolicySet:
    """Lanes, fleets and profiles that fit together; `engine.policy.load` builds it."""

    lanes: Mapping[str, Lane]
    fleets: Mapping[str, Fleet]
    profiles: Mapping[str, Profile]
    workspaces: Mapping[str, Share] = field(default_factory=dict)
    rates: Mapping[str, Rate] = field(default_factory=dict)
    gates: Mapping[str, Gate] = field(default_factory=dict)

    @cached_property
    def version(self) -> str:
        """Twelve hex digits of the SHA-256 of the content; comments and order of keys do not count."""
        canonical = json.dumps(self.plain(), sort_keys=True, separators=(",", ":"))
        return sha256(canonical.encode()).hexdigest()[:12]

    def plain(self) -> dict[str, object]:
        """Return the content as plain values, with every default; `from_plain` reads it back."""
        return {
            "lanes": {name: lane.model_dump(mode="json") for name, lane in self.lanes.items()},
            "fleets": {name: fleet.model_dump(mode="json") for name, fleet in self.fleets.items()},
            "profiles": {name: one.model_dump(mode="json", by_alias=True) for name, one in self.profiles.items()},
            "workspaces": {name: one.model_dump(mode="json") for name, one in self.workspaces.items()},
            "rates": {channel: one.model_dump(mode="json", exclude_none=True) for channel, one in self.rates.items()},
            "gates": {store: one.model_dump(mode="json", exclude_none=True) for store, one in self.gates.items()},
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, object]) -> PolicySet:
        """Restore the set from `plain`, e.g. a recorded version. Raises pydantic's `ValidationError` if invalid."""
        parts = {key: plain[key] for key in ("lanes", "fleets", "workspaces", "rates", "gates") if key in plain}
        lanes = Lanes.model_validate(parts)
        told = plain["profiles"]
        profiles = {n: Profile.model_validate(p) for n, p in told.items()} if isinstance(told, Mapping) else {}
        return cls.of(lanes, profiles)

    @classmethod
    def of(cls, lanes: Lanes, profiles: Mapping[str, Profile]) -> PolicySet:
        """Build the set of these parts, without a check that they fit together."""
        return cls(
            MappingProxyType(dict(lanes.lanes)),
            MappingProxyType(dict(lanes.fleets)),
            MappingProxyType(dict(profiles)),
            MappingProxyType(dict(lanes.workspaces)),
            MappingProxyType({str(channel): rate for channel, rate in lanes.rates.items()}),
            MappingProxyType({str(store): gate for store, gate in lanes.gates.items()}),
        )

    def profile_for(self, facts: CampaignFacts) -> Profile:
        """Return the profile that governs a campaign.

        The named profile comes first; then, of those whose `matches` fit, the one with the highest priority (of equals
        the first by name); then `default`. A named profile that no longer exists counts as not named: campaigns go on
        under a policy edit, and `load_campaign` refuses the name at the next apply.
        """
        if facts.profile is not None and facts.profile in self.profiles:
            return self.profiles[facts.profile]
        fitting = [one for one in self.profiles.values() if one.matches is not None and fits(one.matches, facts)]
        return min(fitting, key=lambda one: (-one.priority, one.profile), default=self.profiles[DEFAULT])

    def lane(self, name: str) -> Lane:
        """Return the lane of that name. Raises `NotFound`."""
        if name not in self.lanes:
            raise NotFound(f"there is no lane {name}", remedy=f"lanes are {', '.join(self.lanes)}")
        return self.lanes[name]

    def fleet_names(self, lane: str) -> tuple[str, ...]:
        """Return the names of the fleets that serve a lane, in the order of the file."""
        return tuple(name for name, fleet in self.fleets.items() if lane in fleet.lanes)

    def workers(self, lane: str) -> int:
        """Return the number of worker threads that serve a lane."""
        return sum(self.fleets[name].workers for name in self.fleet_names(lane))

    def delivering_threads(self, fleets: Iterable[str]) -> int:
        """Return the worker threads that one process of these fleets (names) has for delivering lanes; at least 1."""
        deliver = {name for name, lane in self.lanes.items() if lane.kind is LaneKind.DELIVER}
        serving = [self.fleets[name] for name in fleets if name in self.fleets]
        return max(1, sum(fleet.threads for fleet in serving if deliver & {*fleet.lanes}))

    def weight_of(self, workspace: str) -> float:
        """Return the weight by which a workspace shares every lane with others; 1 if the policies do not name it."""
        share = self.workspaces.get(workspace)
        return 1.0 if share is None else float(share.weight)

    def processes(self, lane: str) -> int:
        """Return the number of processes that serve a lane; at least 1."""
        return max(1, sum(self.fleets[name].processes for name in self.fleet_names(lane)))

    def room(self, lane: str) -> int:
        """Return the maximum messages in a lane's queue: its depth for each worker thread that serves it."""
        return self.lane(lane).depth * self.workers(lane)


def fits(matches: Matches, facts: CampaignFacts) -> bool:
    """Whether `matches` fits a campaign."""
    return (
        any(fnmatchcase(facts.workspace, pattern) for pattern in matches.workspace)
        and any(fnmatchcase(facts.campaign, pattern) for pattern in matches.campaign)
        and matches.kind in (None, facts.kind)
        and matches.cost in (None, facts.cost)
    )
