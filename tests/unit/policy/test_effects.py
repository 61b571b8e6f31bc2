"""The effects of an edit: who moves, who serves a lane, which fleets serve nothing, and what needs a restart."""

from __future__ import annotations

from typing import Any

from engine.pipeline.insight.policy_effects import governed_by
from engine.policy.effects import behind, idle_fleets, moved, restarts, served
from engine.policy.models import CampaignKind, Cost, Lanes, Profile
from engine.policy.policyset import CampaignFacts, PolicySet

LANES: dict[str, Any] = {
    **{name: {} for name in ("control", "looks", "index", "suspect", "fast", "slow")},
    "deliver": {"kind": "deliver"},
}
FLEETS: dict[str, Any] = {
    "fast": {"lanes": ["control", "looks", "index", "fast"]},
    "slow": {"lanes": ["slow"], "niceness": 5},
    "suspect": {"lanes": ["suspect"], "threads": 1},
    "deliver": {"lanes": ["deliver"]},
}


def policies(lanes: Any = LANES, fleets: Any = FLEETS, **profile: object) -> PolicySet:
    default = Profile.model_validate({"profile": "default", "lane": "fast", **profile})
    return PolicySet.of(Lanes.model_validate({"lanes": lanes, "fleets": fleets}), {"default": default})


def campaign(name: str, cost: Cost = Cost.QUICK) -> CampaignFacts:
    return CampaignFacts("shop", name, CampaignKind.ONE_OFF, cost)


CAMPAIGNS = [campaign("quick"), campaign("heavy", Cost.SLOW)]


def test_only_the_campaigns_that_change_profile_or_lane_move() -> None:
    before, after = policies(), policies(lane="slow")
    moves = moved([governed_by(before, one) for one in CAMPAIGNS], [governed_by(after, one) for one in CAMPAIGNS])
    assert [str(move) for move in moves] == ["shop/quick: decides in slow (was fast)"]


def test_lanes_are_told_that_are_new_or_gone_or_served_by_other_fleets() -> None:
    lanes = {**LANES, "express": {}}
    fleets = {
        **FLEETS,
        "fast": {"lanes": ["control", "looks", "index"]},
        "slow": {"lanes": ["slow", "fast", "express"], "niceness": 5},
    }
    there = [str(change) for change in served(policies(), policies(lanes, fleets))]
    assert there == ["lane fast: served by slow (was fast)", "lane express: new, served by slow"]
    back = [str(change) for change in served(policies(lanes, fleets), policies())]
    assert back[1] == "lane express: gone; its queued slices move to the lanes of their campaigns"
    assert served(policies(), policies(weight=3)) == []


def test_a_fleet_serves_nothing_if_no_campaign_uses_its_lanes() -> None:
    both = policies()
    assert idle_fleets(both, [governed_by(both, one) for one in CAMPAIGNS]) == []
    assert idle_fleets(both, [governed_by(both, CAMPAIGNS[0])]) == ["slow"]
    assert idle_fleets(both, []) == ["slow", "deliver"], "the engine's own lanes are always in use"


def test_only_new_and_removed_fleets_and_niceness_need_a_restart() -> None:
    live = {**FLEETS["slow"], "threads": 9, "processes": 3, "prefetch": 9, "worker_timeout": "2s"}
    assert restarts(policies(), policies(fleets={**FLEETS, "slow": live})) == []
    nicer = policies(fleets={**FLEETS, "slow": {**live, "niceness": 0}})
    assert restarts(policies(), nicer) == ["fleets.slow.niceness: restart its processes"]
    renamed = policies(fleets={("post" if name == "deliver" else name): fleet for name, fleet in FLEETS.items()})
    told = restarts(policies(), renamed)
    assert [line.partition(":")[0].partition(" is ")[0] for line in told] == ["the fleet post", "the fleet deliver"]


def test_a_process_says_what_it_does_not_follow_since_its_start() -> None:
    nicer = policies(fleets={**FLEETS, "slow": {"lanes": ["slow"]}})
    assert behind(policies(), nicer, ["slow"]) == [
        "fleets.slow.niceness is 0, the process runs with 5: restart it",
    ]
    assert behind(policies(), nicer, ["fast"]) == []
    assert behind(policies(), policies(), ["slow"]) == [], "an edit and its reversal leave nothing to do"
    gone = policies(
        fleets={"all": {"lanes": ["slow", *FLEETS["fast"]["lanes"]]}, **{k: FLEETS[k] for k in ("suspect", "deliver")}}
    )
    assert behind(policies(), gone, ["slow"])[0].startswith("the fleet slow is gone: its processes serve its lanes")


def test_a_process_of_dramatiqs_own_command_says_that_its_number_wants_a_restart() -> None:
    more = policies(fleets={**FLEETS, "slow": {**FLEETS["slow"], "processes": 3}})
    assert behind(policies(), more, ["slow"]) == []
    assert behind(policies(), more, ["slow"], keeps_processes=True) == [
        "fleets.slow.processes is 3, `tidegate worker slow --dramatiq` runs 1: restart it"
    ]
