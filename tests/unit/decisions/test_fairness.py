"""The order of work: fair shares of time, over workspaces and within each over its campaigns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from engine.decisions.fairness import FIRST_COST, FairShares

Queues = Mapping[str, Mapping[str, Sequence[str]]]


def pieces(name: str, number: int) -> list[str]:
    return [f"{name}:{i}" for i in range(number)]


def names(picked: list[str]) -> list[str]:
    return [slice_.split(":")[0] for slice_ in picked]


def pick(queues: Queues, weights: Mapping[str, float], room: int) -> list[str]:
    return names(FairShares().pick(queues, room, weights=weights))


def lane(costs: Mapping[str, float], *, seconds: float, **options: Mapping[str, float]) -> dict[str, float]:
    """Serve campaigns `w/c` that never run out of work, one slice at a time; return the time each had."""
    shares, had, number = FairShares(), dict.fromkeys(costs, 0.0), 0
    while sum(had.values()) < seconds:
        queues: dict[str, dict[str, list[str]]] = {}
        for name in costs:
            workspace, campaign = name.split("/")
            queues.setdefault(workspace, {})[campaign] = [f"{name}:{number + i}" for i in range(3)]
        [picked] = shares.pick(queues, 1, **options)
        number += 3
        name = picked.split(":")[0]
        shares.measured(picked, costs[name], ended=True)
        had[name] += costs[name]
    return had


def test_without_work_nothing_is_picked() -> None:
    assert FairShares().pick({}, 5) == []
    assert FairShares().pick({"w": {"a": []}}, 5) == []


def test_without_room_nothing_is_picked_and_nothing_is_charged() -> None:
    shares = FairShares()
    assert shares.pick({"w": {"a": pieces("a", 3)}}, 0) == []
    assert not shares.unmeasured


def test_the_work_of_a_campaign_keeps_its_order() -> None:
    assert FairShares().pick({"w": {"a": pieces("a", 3)}}, 2) == ["a:0", "a:1"]


def test_a_large_campaign_takes_turns_with_a_small_one() -> None:
    picked = pick({"w": {"large": pieces("large", 1_000), "small": pieces("small", 2)}}, {}, 6)
    assert picked == ["large", "small", "large", "small", "large", "large"]


def test_a_weight_is_a_share() -> None:
    queues = {"w": {"a": pieces("a", 100), "b": pieces("b", 100)}}
    assert Counter(pick(queues, {"a": 3}, 40)) == {"a": 30, "b": 10}


def test_a_light_campaign_waits_its_turns_and_comes() -> None:
    queues = {"w": {"a": pieces("a", 100), "b": pieces("b", 100)}}
    assert Counter(pick(queues, {"b": 0.25}, 50)) == {"a": 40, "b": 10}


def test_a_weight_of_nothing_still_comes_at_last() -> None:
    queues = {"w": {"a": pieces("a", 500), "b": pieces("b", 1)}}
    assert "b" in pick(queues, {"b": 0.0}, 200)


def test_workspaces_share_equally_whatever_their_campaigns_weigh() -> None:
    queues = {"v": {"a": pieces("a", 50), "b": pieces("b", 50)}, "w": {"c": pieces("c", 50)}}
    counted = Counter(pick(queues, {"a": 10, "b": 10}, 40))
    assert (counted["a"] + counted["b"], counted["c"]) == (20, 20)


def test_workspaces_share_by_their_weights() -> None:
    queues = {w: {c: pieces(c, 90)} for w, c in (("u", "a"), ("v", "b"), ("w", "c"))}
    picked = FairShares().pick(queues, 80, workspace_weights={"v": 2, "w": 5})
    assert Counter(names(picked)) == {"a": 10, "b": 20, "c": 50}


def test_what_one_workspace_leaves_the_others_take() -> None:
    queues = {"v": {"a": pieces("a", 1)}, "w": {"c": pieces("c", 50)}}
    assert Counter(pick(queues, {}, 10)) == {"a": 1, "c": 9}


def test_the_next_call_goes_on_behind_the_last_turn() -> None:
    queues = {"w": {name: pieces(name, 9) for name in "abc"}}
    shares = FairShares()
    assert names(shares.pick(queues, 2)) == ["a", "b"]
    assert names(shares.pick(queues, 2)) == ["c", "a"]


def test_time_is_shared_by_weight_whatever_a_slice_costs() -> None:
    costs = {"u/a": 0.2, "v/b": 0.6, "w/c": 2.0}
    had = lane(costs, seconds=1_000, workspace_weights={"u": 1, "v": 2, "w": 5})
    assert had["u/a"] == pytest.approx(125, rel=0.03)
    assert had["v/b"] == pytest.approx(250, rel=0.03)
    assert had["w/c"] == pytest.approx(625, rel=0.03)


def test_campaigns_of_one_workspace_share_its_time_by_weight() -> None:
    had = lane({"w/a": 0.1, "w/b": 1.0, "v/c": 0.3}, seconds=600, weights={"b": 2})
    assert had["w/a"] == pytest.approx(100, rel=0.03)
    assert had["w/b"] == pytest.approx(200, rel=0.03)
    assert had["v/c"] == pytest.approx(300, rel=0.03)


def test_a_turn_is_charged_while_it_lasts() -> None:
    """A slice that holds its worker for long waits for nobody to count it: others come first meanwhile."""
    shares = FairShares()
    queues = {"w": {"a": pieces("a", 9), "b": pieces("b", 9)}}
    [first] = shares.pick(queues, 1)
    shares.measured(first, 5 * FIRST_COST, ended=False)
    assert names(shares.pick({"w": {"a": pieces("a", 9)[1:], "b": pieces("b", 9)}}, 5)) == ["b"] * 5


def test_a_slice_of_several_turns_pays_for_each_once() -> None:
    shares = FairShares()
    queues = {"w": {"a": ["a:0"], "b": pieces("b", 9)}}
    assert shares.pick(queues, 2) == ["a:0", "b:0"]
    shares.measured("a:0", 1.0, ended=True)
    shares.measured("b:0", 1.0, ended=True)
    assert shares.pick(queues, 2, seconds={"a:0": 1.0, "b:0": 1.0}) == ["a:0", "b:0"]
    shares.measured("a:0", 2.0, ended=True)
    shares.measured("b:0", 2.0, ended=True)
    assert shares.pick(queues, 2, seconds={"a:0": 2.0, "b:0": 2.0}) == ["a:0", "b:0"]


def test_a_queue_that_was_idle_saves_nothing_up() -> None:
    shares = FairShares()
    for number in range(50):
        for slice_id in shares.pick({"w": {"b": [f"b:{number}"], "c": [f"c:{number}"]}}, 2):
            shares.measured(slice_id, 1.0, ended=True)
    picked = shares.pick({"w": {"a": pieces("a", 9), "b": pieces("b", 9), "c": pieces("c", 9)}}, 6)
    assert Counter(names(picked)) == {"a": 2, "b": 2, "c": 2}


def test_a_slice_that_is_gone_is_forgotten() -> None:
    shares = FairShares()
    [first] = shares.pick({"w": {"a": pieces("a", 1), "b": []}}, 1)
    assert shares.unmeasured == {first}
    assert shares.at_work == {"a"}
    shares.forget(first)
    shares.forget(first)
    shares.measured(first, 9.0, ended=True)
    assert not shares.unmeasured
