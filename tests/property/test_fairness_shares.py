"""Fair shares under stress: any queues, weights, costs and rooms, over many calls."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engine.decisions.fairness import FairShares

NAMES = st.sampled_from(["a", "b", "c", "d"])
QUEUES = st.dictionaries(
    st.sampled_from(["v", "w", "x"]), st.dictionaries(NAMES, st.integers(0, 12), max_size=4), max_size=3
)
WEIGHTS = st.dictionaries(NAMES, st.floats(0.05, 20, allow_nan=False), max_size=4)
ROOMS = st.lists(st.integers(0, 9), min_size=1, max_size=30)
COSTS = st.dictionaries(NAMES, st.floats(0.01, 10, allow_nan=False), max_size=4)


def filled(queues: dict[str, dict[str, int]]) -> dict[str, dict[str, list[str]]]:
    return {w: {c: [f"{w}/{c}:{i}" for i in range(n)] for c, n in campaigns.items()} for w, campaigns in queues.items()}


def campaign(slice_: str) -> str:
    return slice_.split(":")[0].split("/")[1]


@given(QUEUES, WEIGHTS, st.integers(0, 60))
def test_room_is_respected_and_used_and_each_queue_keeps_its_order(
    queues: dict[str, dict[str, int]], weights: dict[str, float], room: int
) -> None:
    given_queues = filled(queues)
    everything = [
        slice_ for campaigns in given_queues.values() for campaign_ in campaigns.values() for slice_ in campaign_
    ]
    picked = FairShares().pick(given_queues, room, weights=weights)
    assert len(picked) == min(room, len(everything))
    assert set(picked) <= set(everything)
    for campaigns in given_queues.values():
        for campaign_ in campaigns.values():
            mine = [slice_ for slice_ in picked if slice_ in campaign_]
            assert mine == campaign_[: len(mine)]


@given(WEIGHTS, COSTS, ROOMS)
def test_time_is_kept_in_proportion_to_weights_however_small_the_calls(
    weights: dict[str, float], costs: dict[str, float], rooms: list[int]
) -> None:
    """While no queue is empty, no campaign is ahead of its share by more than its own turns in one call and one more.

    A campaign's first turns are charged by the assumed cost until the first measurement.
    """
    names = ["a", "b", "c", "d"]
    shares, had = FairShares(), dict.fromkeys(names, 0.0)
    own = {name: weights.get(name, 1.0) for name in names}
    for number, room in enumerate(rooms * 10):
        queues = {"w": {name: [f"w/{name}:{number}-{i}" for i in range(60)] for name in names}}
        for slice_ in shares.pick(queues, room, weights=weights):
            cost = costs.get(campaign(slice_), 1.0)
            had[campaign(slice_)] += cost
            shares.measured(slice_, cost, ended=True)
    most = max(1.0, *costs.values()) if costs else 1.0
    share = {name: had[name] / own[name] for name in names}
    slack = {name: (max(rooms) + 1) * most / own[name] for name in names}
    for name in names:
        for other in names:
            assert share[name] - share[other] <= slack[name] + slack[other]


@given(st.dictionaries(st.sampled_from(["v", "w", "x"]), NAMES, min_size=1), WEIGHTS, ROOMS)
def test_workspaces_with_enough_to_do_never_differ_by_more_than_one(
    campaigns: dict[str, str], weights: dict[str, float], rooms: list[int]
) -> None:
    counted: Counter[str] = Counter(dict.fromkeys(campaigns, 0))
    shares = FairShares()
    for room in rooms:
        picked = shares.pick(filled({w: {c: 20} for w, c in campaigns.items()}), room, weights=weights)
        counted.update(slice_[0] for slice_ in picked)
    assert max(counted.values()) - min(counted.values()) <= 1


@given(QUEUES, WEIGHTS, st.integers(1, 5))
def test_everybody_is_served_in_the_end(
    queues: dict[str, dict[str, int]], weights: dict[str, float], room: int
) -> None:
    left = filled(queues)
    shares = FairShares()
    for _ in range(sum(n for queue in queues.values() for n in queue.values())):
        picked = shares.pick(left, room, weights=weights)
        for taken in picked:
            shares.measured(taken, 0.5, ended=True)
        left = {w: {c: [p for p in slices if p not in picked] for c, slices in own.items()} for w, own in left.items()}
    assert not any(slice_ for own in left.values() for slice_ in own.values())
    assert not shares.unmeasured
