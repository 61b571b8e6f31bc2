"""The replay of recorded slices conserves work, whatever came when, and under whatever policies."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine.domain.slice_record import SliceRecord
from engine.domain.work import SliceKind
from engine.policy.policyset import PolicySet
from tests.support.recorded_slices import policy_set, record, replayed

IN_FLIGHT = 3


@st.composite
def loads(draw: st.DrawFn) -> list[SliceRecord]:
    """Draw slices of a few campaigns in two workspaces, some delivering, some suspect, of one turn or more."""
    count = draw(st.integers(1, 30))
    return [
        record(
            f"{number:03d}",
            at=draw(st.integers(0, 400)),
            takes=draw(st.lists(st.integers(1, 200), min_size=1, max_size=3)),
            campaign=(campaign := draw(st.sampled_from(["a", "b", "c"]))),
            workspace="left" if campaign == "a" else "right",
            kind=draw(st.sampled_from([SliceKind.CANDIDATES, SliceKind.DUE, SliceKind.DELIVER])),
            suspect=draw(st.integers(0, 9)) == 0,
        )
        for number in range(count)
    ]


@st.composite
def policies(draw: st.DrawFn) -> PolicySet:
    """Draw policies: threads, depths, weights, urgencies, and whether one fleet serves two lanes."""
    lanes = {name: {"depth": draw(st.integers(1, 4))} for name in ("fast", "slow")}
    lanes["deliver"] = {"depth": draw(st.integers(1, 4)), "kind": "deliver"}
    both = draw(st.booleans())
    fleets = {
        "fast": {"lanes": ["fast", "slow"] if both else ["fast"], "threads": draw(st.integers(1, 3))},
        "deliver": {"lanes": ["deliver"], "processes": draw(st.integers(1, 2)), "threads": 1},
    }
    profiles = [
        {
            "profile": f"of-{name}",
            "matches": {"campaign": name},
            "lane": draw(st.sampled_from(["fast", "slow"])),
            "urgency": draw(st.sampled_from(["high", "normal", "low"])),
            "weight": draw(st.sampled_from([0.1, 1, 7])),
            "in_flight": draw(st.sampled_from([IN_FLIGHT, 1_000])),
        }
        for name in "abc"
    ]
    return policy_set(lanes=lanes, fleets=fleets, profiles=profiles, workspaces={"left": {"weight": 3}})


@given(loads(), policies())
def test_every_turn_is_simulated_once_and_takes_as_long_as_recorded(load: list[SliceRecord], under: PolicySet) -> None:
    turns = replayed(load, under)
    assert Counter(turn.slice_id for turn in turns) == {one.id: len(one.turns) for one in load}
    by_id = {one.id: [turn.held for turn in one.turns] for one in load}
    for name, held in by_id.items():
        own = [turn for turn in turns if turn.slice_id == name]
        assert [turn.held for turn in own] == held
        assert all(later.free == earlier.ended for earlier, later in pairwise(own))
    assert all(turn.wait >= 0 for turn in turns)


@given(loads(), policies())
def test_no_thread_idles_while_a_slice_waits_that_it_may_take(load: list[SliceRecord], under: PolicySet) -> None:
    turns = replayed(load, under)
    group = {one.id: (one.campaign, one.delivers) for one in load}
    most = {one.campaign: under.profiles[f"of-{one.campaign}"].in_flight for one in load}
    for waiting in turns:
        for at in {waiting.free, *(turn.ended for turn in turns if waiting.free <= turn.ended < waiting.claimed)}:
            if at == waiting.claimed:
                continue
            held = [turn for turn in turns if turn.claimed <= at < turn.ended]
            flying = sum(group[turn.slice_id] == group[waiting.slice_id] for turn in held)
            # a message that is enqueued, not held, counts as in flight as well
            enqueued = sum(
                group[turn.slice_id] == group[waiting.slice_id] and turn.free <= at < turn.claimed for turn in turns
            )
            campaign, delivers = group[waiting.slice_id]
            if flying + enqueued > most[campaign] * (under.processes(waiting.lane) if delivers else 1):
                continue
            for fleet in under.fleet_names(waiting.lane):
                served = [turn for turn in held if turn.lane in under.fleets[fleet].lanes]
                assert len(served) == under.fleets[fleet].workers, (waiting, at)
