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
        "slow": {"lanes": ["index"] if both else ["slow"], "threads": draw(st.integers(1, 2))},
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
    for waiting in turns:
        campaign, delivers = group[waiting.slice_id]
        most = under.profiles[f"of-{campaign}"].in_flight * (under.processes(waiting.lane) if delivers else 1)
        (fleet,) = under.fleet_names(waiting.lane)
        for at in {waiting.free, *(turn.ended for turn in turns)}:
            there = [turn for turn in turns if turn.free <= at < turn.ended]
            alike = sum(group[turn.slice_id] == (campaign, delivers) for turn in there)
            if waiting.free <= at < waiting.claimed and alike <= most:  # more of them wait for each other
                held = [turn for turn in there if turn.claimed <= at and turn.lane in under.fleets[fleet].lanes]
                assert len(held) == under.fleets[fleet].workers, (waiting, at)


@given(loads(), policies())
def test_no_campaign_has_more_slices_with_workers_than_its_profile_allows(
    load: list[SliceRecord], under: PolicySet
) -> None:
    turns = replayed(load, under)
    group = {one.id: (one.campaign, one.delivers) for one in load}
    for began in turns:
        campaign, delivers = group[began.slice_id]
        most = under.profiles[f"of-{campaign}"].in_flight * (under.processes("deliver") if delivers else 1)
        held = [turn for turn in turns if turn.claimed <= began.claimed < turn.ended]
        assert sum(group[turn.slice_id] == (campaign, delivers) for turn in held) <= most
