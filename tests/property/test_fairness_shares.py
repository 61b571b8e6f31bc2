"""Fair shares under stress: any queues, weights and rooms, over many calls."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engine.decisions.fairness import Turns, share

NAMES = st.sampled_from(["a", "b", "c", "d"])
QUEUES = st.dictionaries(
    st.sampled_from(["v", "w", "x"]), st.dictionaries(NAMES, st.integers(0, 12), max_size=4), max_size=3
)
WEIGHTS = st.dictionaries(NAMES, st.floats(0.05, 20, allow_nan=False), max_size=4)
ROOMS = st.lists(st.integers(0, 9), min_size=1, max_size=30)


def filled(queues: dict[str, dict[str, int]]) -> dict[str, dict[str, list[str]]]:
    return {w: {c: [f"{w}/{c}:{i}" for i in range(n)] for c, n in campaigns.items()} for w, campaigns in queues.items()}


@given(QUEUES, WEIGHTS, st.integers(0, 60))
def test_room_is_respected_and_used_and_each_queue_keeps_its_order(
    queues: dict[str, dict[str, int]], weights: dict[str, float], room: int
) -> None:
    given_queues = filled(queues)
    everything = [slice_ for campaigns in given_queues.values() for one in campaigns.values() for slice_ in one]
    picked, _ = share(given_queues, weights, room, Turns())
    assert len(picked) == min(room, len(everything))
    assert set(picked) <= set(everything)
    for campaigns in given_queues.values():
        for one in campaigns.values():
            mine = [slice_ for slice_ in picked if slice_ in one]
            assert mine == one[: len(mine)]


@given(QUEUES, WEIGHTS, ROOMS)
def test_only_waiting_queues_keep_credit_of_at_most_one_turn(
    queues: dict[str, dict[str, int]], weights: dict[str, float], rooms: list[int]
) -> None:
    turns = Turns()
    for room in rooms:
        given_queues = filled(queues)
        picked, turns = share(given_queues, weights, room, turns)
        waiting = {w + "/" + c for w in given_queues for c, one in given_queues[w].items() if set(one) - set(picked)}
        assert set(turns.credit) <= waiting
        for key, credit in turns.credit.items():
            assert 0 <= credit < 1 + weights.get(key.split("/")[1], 1.0)


@given(WEIGHTS, ROOMS)
def test_weights_are_kept_in_proportion_however_small_the_calls(weights: dict[str, float], rooms: list[int]) -> None:
    """While no queue is empty, the bound of deficit round-robin holds: two turns, plus one item per queue and one."""
    names = ["a", "b", "c", "d"]
    counted: Counter[str] = Counter()
    turns = Turns()
    for room in rooms * 10:
        picked, turns = share(filled({"w": dict.fromkeys(names, 60)}), weights, room, turns)
        counted.update(slice_.split(":")[0][2:] for slice_ in picked)
    own = {name: weights.get(name, 1.0) for name in names}
    rounds = counted.total() / sum(own.values())
    for name in names:
        assert abs(counted[name] - rounds * own[name]) <= 2 * own[name] + len(names) + 1


@given(st.dictionaries(st.sampled_from(["v", "w", "x"]), NAMES, min_size=1), WEIGHTS, ROOMS)
def test_workspaces_with_enough_to_do_never_differ_by_more_than_one(
    campaigns: dict[str, str], weights: dict[str, float], rooms: list[int]
) -> None:
    counted: Counter[str] = Counter(dict.fromkeys(campaigns, 0))
    turns = Turns()
    for room in rooms:
        picked, turns = share(filled({w: {c: 20} for w, c in campaigns.items()}), weights, room, turns)
        counted.update(slice_[0] for slice_ in picked)
    assert max(counted.values()) - min(counted.values()) <= 1


@given(QUEUES, WEIGHTS, st.integers(1, 5))
def test_everybody_is_served_in_the_end(
    queues: dict[str, dict[str, int]], weights: dict[str, float], room: int
) -> None:
    left = filled(queues)
    turns = Turns()
    for _ in range(sum(n for one in queues.values() for n in one.values())):
        picked, turns = share(left, weights, room, turns)
        left = {w: {c: [p for p in one if p not in picked] for c, one in own.items()} for w, own in left.items()}
    assert not any(one for own in left.values() for one in own.values())
    assert turns.credit == {}
