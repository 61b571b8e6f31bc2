"""Records of slices and small sets of policies, for tests of `policy simulate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from engine.domain.slice_record import SliceRecord, Turn
from engine.domain.work import SliceKind
from engine.pipeline.insight.lane_simulation import Reaction, SimulatedTurn, simulate
from engine.policy.models import CampaignKind, Cost, Lanes, Profile
from engine.policy.policyset import CampaignFacts, PolicySet

LANES: Final = {
    "control": {},
    "looks": {},
    "index": {},
    "suspect": {"depth": 1},
    "fast": {"depth": 1},
    "slow": {"depth": 1},
    "deliver": {"kind": "deliver", "depth": 1},
}


def policy_set(
    *, fleets: Mapping[str, Mapping[str, Any]] = {}, profiles: Sequence[Mapping[str, Any]] = (), **more: Any
) -> PolicySet:
    """Return a set with one thread for each lane, where nothing else is given; `profiles` add to a `default`.

    `more` replaces parts of `lanes.yaml`; a lane given there replaces the one of that name.
    """
    engine = {"engine": {"lanes": ["control", "looks", "index"], "threads": 1}}
    own = {name: {"lanes": [name], "threads": 1} for name in ("suspect", "fast", "slow", "deliver")}
    lanes = {**LANES, **more.pop("lanes", {})}
    read = Lanes.model_validate({"lanes": lanes, "fleets": {**engine, **own, **fleets}, **more})
    declared = [{"profile": "default", "lane": "fast", "in_flight": 1_000}, *profiles]
    return PolicySet.of(read, {str(one["profile"]): Profile.model_validate(one) for one in declared})


def facts(uid: str, workspace: str = "shop", cost: Cost = Cost.QUICK) -> CampaignFacts:
    """Return the facts of a continuous campaign that is called as its uid."""
    return CampaignFacts(workspace, uid, CampaignKind.CONTINUOUS, cost)


def record(
    name: str,
    *,
    at: int = 0,
    takes: Sequence[int] = (100,),
    campaign: str = "c",
    workspace: str = "shop",
    kind: SliceKind = SliceKind.CANDIDATES,
    **more: Any,
) -> SliceRecord:
    """Return a slice that came at `at` (ms) and took these turns (ms), one after another, as soon as it was free."""
    ends = [sum(takes[: number + 1]) for number in range(len(takes))]
    turns = tuple(Turn(end - held, end - held, end) for held, end in zip(takes, ends, strict=True))
    return SliceRecord(name, workspace, campaign, kind, at, turns, worked=sum(takes), **more)


def replayed(records: Sequence[SliceRecord], policies: PolicySet, **more: Any) -> list[SimulatedTurn]:
    """Simulate the records under `policies`, with a clock that reacts at once."""
    campaigns = {one.campaign: facts(one.campaign, one.workspace) for one in records}
    return simulate(records, more.pop("facts", campaigns), policies, reaction=Reaction([0.0]), **more)
