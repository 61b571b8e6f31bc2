"""The order of work: turns over workspaces, and by weight over the campaigns of a workspace."""

from __future__ import annotations

from collections import Counter

from engine.decisions.fairness import Turns, share


def pieces(name: str, number: int) -> list[str]:
    return [f"{name}:{i}" for i in range(number)]


def names(picked: list[str]) -> list[str]:
    return [slice_.split(":")[0] for slice_ in picked]


def test_without_work_no_slice_is_picked() -> None:
    assert share({}, {}, 5, Turns())[0] == []
    assert share({"w": {"a": []}}, {}, 5, Turns())[0] == []


def test_without_room_no_slice_is_picked_and_no_credit_is_kept() -> None:
    assert share({"w": {"a": pieces("a", 3)}}, {}, 0, Turns()) == ([], Turns())


def test_the_work_of_a_campaign_keeps_its_order() -> None:
    assert share({"w": {"a": pieces("a", 3)}}, {}, 2, Turns())[0] == ["a:0", "a:1"]


def test_a_large_campaign_takes_turns_with_a_small_one() -> None:
    picked, _ = share({"w": {"large": pieces("large", 1_000), "small": pieces("small", 2)}}, {}, 6, Turns())
    assert names(picked) == ["large", "small", "large", "small", "large", "large"]


def test_a_weight_is_a_share() -> None:
    queues = {"w": {"a": pieces("a", 100), "b": pieces("b", 100)}}
    assert names(share(queues, {"a": 3}, 8, Turns())[0]) == ["a", "a", "a", "b", "a", "a", "a", "b"]


def test_a_heavy_campaign_gets_exactly_its_weight_with_room_for_one() -> None:
    picked: list[str] = []
    turns = Turns()
    for _ in range(8):
        one, turns = share({"w": {"a": pieces("a", 9), "b": pieces("b", 9)}}, {"a": 3}, 1, turns)
        picked += one
    assert names(picked) == ["a", "a", "a", "b", "a", "a", "a", "b"]


def test_a_light_campaign_gets_its_turn() -> None:
    queues = {"w": {"a": pieces("a", 100), "b": pieces("b", 100)}}
    assert Counter(names(share(queues, {"b": 0.25}, 50, Turns())[0])) == {"a": 40, "b": 10}


def test_a_campaign_of_weight_zero_gets_a_turn_at_last() -> None:
    queues = {"w": {"a": pieces("a", 500), "b": pieces("b", 1)}}
    assert "b:0" in share(queues, {"b": 0.0}, 200, Turns())[0]


def test_workspaces_share_equally_whatever_the_weights_of_their_campaigns() -> None:
    queues = {"v": {"a": pieces("a", 50), "b": pieces("b", 50)}, "w": {"c": pieces("c", 50)}}
    counted = Counter(names(share(queues, {"a": 10, "b": 10}, 40, Turns())[0]))
    assert (counted["a"] + counted["b"], counted["c"]) == (20, 20)


def test_unused_room_of_a_workspace_goes_to_the_others() -> None:
    queues = {"v": {"a": pieces("a", 1)}, "w": {"c": pieces("c", 50)}}
    assert Counter(names(share(queues, {}, 10, Turns())[0])) == {"a": 1, "c": 9}


def test_the_next_call_continues_after_the_last_turn() -> None:
    queues = {"w": {name: pieces(name, 9) for name in "abc"}}
    picked, turns = share(queues, {}, 2, Turns())
    assert names(picked) == ["a", "b"]
    assert names(share(queues, {}, 2, turns)[0]) == ["c", "a"]


def test_an_empty_queue_keeps_no_credit() -> None:
    turns = Turns()
    for _ in range(20):
        _, turns = share({"w": {"a": pieces("a", 1), "b": pieces("b", 9)}}, {"a": 10}, 4, turns)
    assert "w/a" not in turns.credit
