"""The differences between two policy sets, and their effect on campaigns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from engine.policy.policyset import CampaignFacts, PolicySet


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs, e.g. `profiles.slow.inactivity: 45d -> 30d`; None means absent."""

    key: str
    before: object | None
    after: object | None

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.key}: {_shown(self.after)} (new)"
        if self.after is None:
            return f"{self.key}: gone (was {_shown(self.before)})"
        return f"{self.key}: {_shown(self.after)} (was {_shown(self.before)})"


@dataclass(frozen=True, slots=True)
class Governed:
    """The effect of a policy set on one campaign: its profile, the reason for it, and the lanes of its slices."""

    workspace: str
    campaign: str
    profile: str
    why: str
    lane: str
    deliver_lane: str
    weight: float
    in_flight: int
    urgency: str
    workspace_weight: float


def differences(old: PolicySet, new: PolicySet) -> list[Difference]:
    """Return every value that differs, lanes before fleets before profiles; empty for equal sets."""
    return list(_between("", old.plain(), new.plain()))


def governed(policies: PolicySet, facts: CampaignFacts, lane: str, deliver_lane: str) -> Governed:
    """Return the effect of `policies` on a campaign; `engine.decisions.routing` determines the given lanes."""
    profile = policies.profile_for(facts)
    if facts.profile == profile.profile:
        why = "named by the campaign"
    elif profile.matches is None:
        why = "no other profile matches"
    else:
        told = profile.matches.model_dump(mode="json", exclude_defaults=True)
        listed = ", ".join(f"{key}: {value}" for key, value in told.items())
        why = f"matches {listed or 'every campaign'}; priority {profile.priority}"
    if facts.profile is not None and facts.profile not in policies.profiles:
        why += f'; there is no profile "{facts.profile}"'
    return Governed(
        facts.workspace,
        facts.campaign,
        profile.profile,
        why,
        lane,
        deliver_lane,
        profile.weight,
        profile.in_flight,
        profile.urgency.value,
        policies.weight_of(facts.workspace),
    )


def shares(campaigns: Iterable[Governed]) -> dict[str, list[tuple[Governed, float]]]:
    """Return each lane's campaigns with their shares of its time, while all campaigns of their urgency have work.

    A campaign has its weight's part of what its workspace has. Campaigns of a higher urgency come before all shares.
    """
    lanes: dict[str, list[Governed]] = {}
    for one in campaigns:
        lanes.setdefault(one.lane, []).append(one)
    return {lane: [(one, _share(one, members)) for one in members] for lane, members in sorted(lanes.items())}


def _share(one: Governed, members: Iterable[Governed]) -> float:
    alike = [other for other in members if other.urgency == one.urgency]
    workspaces = {other.workspace: other.workspace_weight for other in alike}
    own = sum(other.weight for other in alike if other.workspace == one.workspace)
    return one.workspace_weight / sum(workspaces.values()) * one.weight / own


def _between(path: str, old: object, new: object) -> Iterator[Difference]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _between(f"{path}.{key}" if path else str(key), old.get(key), new.get(key))
    elif old != new:
        yield Difference(path, old, new)


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items() if item is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return str(value)
