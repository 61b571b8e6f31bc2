"""The replay of recorded slices, against cases computed by hand: times in ms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from engine.domain.slice_record import SliceRecord, Turn
from engine.domain.work import SliceKind
from engine.pipeline.insight.lane_simulation import Origin, Reaction, SimulatedTurn, simulate
from engine.policy.models import Cost
from tests.support.recorded_slices import facts, policy_set, record, replayed


def claims(turns: Sequence[SimulatedTurn]) -> list[tuple[str, float]]:
    """Return which slice was claimed when."""
    return [(turn.slice_id, turn.claimed) for turn in turns]


def test_one_thread_works_first_come_first_served() -> None:
    records = [record("a", at=0), record("b", at=10), record("c", at=20, takes=[50]), record("d", at=400)]
    turns = replayed(records, policy_set())
    assert claims(turns) == [("a", 0), ("b", 100), ("c", 200), ("d", 400)]
    assert [turn.wait for turn in turns] == [0, 90, 180, 0]
    assert {turn.lane for turn in turns} == {"fast"}


def test_two_threads_halve_the_work_that_waits() -> None:
    fleets = {"fast": {"lanes": ["fast"], "processes": 2, "threads": 1}}
    turns = replayed([record(name) for name in "abcd"], policy_set(fleets=fleets))
    assert claims(turns) == [("a", 0), ("b", 0), ("c", 100), ("d", 100)]


def test_the_reaction_of_the_clock_delays_what_is_not_enqueued_ahead() -> None:
    records = [record("a"), record("b"), record("c")]
    one = simulate(records, {"c": facts("c")}, policy_set(), reaction=Reaction([30.0]))
    assert claims(one) == [("a", 30), ("b", 160), ("c", 290)], "with depth 1 a thread waits for the clock"
    deeper = policy_set(lanes={"fast": {"depth": 2}})
    two = simulate(records, {"c": facts("c")}, deeper, reaction=Reaction([30.0]))
    assert claims(two) == [("a", 30), ("b", 130), ("c", 230)], "with depth 2 the next message is there"


@pytest.mark.parametrize("heavy", ["left", "right"])
def test_two_workspaces_share_a_lane_by_their_weights(heavy: str) -> None:
    policies = policy_set(workspaces={heavy: {"weight": 3}})
    records = [
        record(f"{workspace}/{number:03d}", campaign=f"of-{workspace}", workspace=workspace)
        for workspace in ("left", "right")
        for number in range(100)
    ]
    first = Counter(turn.slice_id.partition("/")[0] for turn in replayed(records, policies)[:80])
    assert first[heavy] == pytest.approx(60, abs=1)


def test_a_workspace_with_longer_slices_gets_fewer_of_them() -> None:
    records = [
        record(f"{workspace}/{number:03d}", campaign=f"of-{workspace}", workspace=workspace, takes=[takes])
        for workspace, takes in (("left", 300), ("right", 100))
        for number in range(100)
    ]
    turns = [turn for turn in replayed(records, policy_set()) if turn.ended <= 20_000]
    held = Counter[str]()
    for turn in turns:
        held[turn.slice_id.partition("/")[0]] += int(turn.held)
    assert held["left"] / held["right"] == pytest.approx(1, abs=0.1)


def test_the_more_urgent_campaign_comes_first_whatever_came_before() -> None:
    urgent = {"profile": "urgent", "lane": "fast", "matches": {"campaign": "hot"}, "urgency": "high"}
    records = [record(f"cold/{n}", campaign="cold") for n in range(3)]
    records += [record(f"hot/{n}", at=50, campaign="hot") for n in range(2)]
    assert [turn.slice_id for turn in replayed(records, policy_set(profiles=[urgent]))] == [
        "cold/0",
        "hot/0",
        "hot/1",
        "cold/1",
        "cold/2",
    ]


def test_in_flight_limits_the_slices_of_a_campaign_at_a_time() -> None:
    fleets = {"fast": {"lanes": ["fast"], "threads": 4}}
    narrow = {"profile": "narrow", "lane": "fast", "matches": {"campaign": "c"}, "in_flight": 2}
    turns = replayed([record(name) for name in "abcd"], policy_set(fleets=fleets, profiles=[narrow]))
    assert claims(turns) == [("a", 0), ("b", 0), ("c", 100), ("d", 100)]


def test_in_flight_of_delivering_slices_counts_for_each_process() -> None:
    fleets = {"deliver": {"lanes": ["deliver"], "processes": 2, "threads": 4}}
    narrow = {"profile": "narrow", "lane": "fast", "matches": {"campaign": "c"}, "in_flight": 1}
    records = [record(name, kind=SliceKind.DELIVER) for name in "abcd"]
    turns = replayed(records, policy_set(fleets=fleets, profiles=[narrow]))
    assert claims(turns) == [("a", 0), ("b", 0), ("c", 100), ("d", 100)]


def test_a_campaign_moved_to_another_lane_leaves_the_others_their_threads() -> None:
    records = [record(f"big/{n}", campaign="big", takes=[1_000]) for n in range(4)]
    records += [record("small/0", at=100, campaign="a-small")]
    before = {turn.slice_id: turn for turn in replayed(records, policy_set())}
    moved = {"profile": "moved", "lane": "slow", "matches": {"campaign": "big"}}
    after = {turn.slice_id: turn for turn in replayed(records, policy_set(profiles=[moved]))}
    assert (before["small/0"].wait, after["small/0"].wait) == (900, 0)
    assert {turn.lane for name, turn in after.items() if name.startswith("big")} == {"slow"}


def test_a_fleet_that_serves_two_lanes_takes_what_was_enqueued_first() -> None:
    fleets = {"fast": {"lanes": ["fast", "slow"], "threads": 1}}
    fleets["slow"] = {"lanes": ["index"], "threads": 1}
    records = [
        record("a", campaign="quick"),
        record("b", at=10, campaign="costly"),
        record("c", at=20, campaign="quick"),
    ]
    known = {"quick": facts("quick"), "costly": facts("costly", cost=Cost.SLOW)}
    policies = policy_set(fleets=fleets, lanes={"fast": {"depth": 4}})
    turns = replayed(records, policies, facts=known)
    assert claims(turns) == [("a", 0), ("b", 100), ("c", 200)]
    assert [turn.lane for turn in turns] == ["fast", "slow", "fast"]


def test_a_slice_waits_again_after_each_turn_and_rests_through_its_back_off() -> None:
    records = [record("a", takes=[100, 100]), record("b", at=50, campaign="b")]
    turns = replayed(records, policy_set())
    assert claims(turns) == [("a", 0), ("b", 100), ("a", 200)]
    assert [turn.wait for turn in turns] == [0, 50, 100]
    resting = SliceRecord("a", "shop", "c", SliceKind.CANDIDATES, 0, (Turn(0, 0, 10), Turn(510, 600, 610)), worked=20)
    assert [(turn.free, turn.claimed) for turn in replayed([resting], policy_set())] == [(0, 0), (510, 510)]


def test_turns_that_are_not_recorded_take_the_rest_of_the_time() -> None:
    whole = SliceRecord("a", "shop", "c", SliceKind.DUE, 0, (Turn(0, 0, 100), Turn(100, 100, 200)), worked=500)
    assert [turn.held for turn in replayed([whole], policy_set())] == [100] * 5


def test_a_suspect_waits_for_the_thread_of_its_own_lane() -> None:
    turns = replayed([record("a", suspect=True), record("b"), record("c", suspect=True)], policy_set())
    assert sorted((turn.slice_id, turn.lane, turn.claimed) for turn in turns) == [
        ("a", "suspect", 0),
        ("b", "fast", 0),
        ("c", "suspect", 100),
    ]


def test_deliveries_come_when_their_decision_reaches_the_point_where_it_made_them() -> None:
    records = [record(f"decide/{n}") for n in range(3)]
    records.append(record("deliver/0", at=250, kind=SliceKind.DELIVER))
    made = {"deliver/0": Origin("decide/2", 0, 50.0)}
    fleets = {"fast": {"lanes": ["fast"], "threads": 3}}
    before = [turn for turn in replayed(records, policy_set(), origins=made) if turn.lane == "deliver"]
    after = [turn for turn in replayed(records, policy_set(fleets=fleets), origins=made) if turn.lane == "deliver"]
    assert (claims(before), claims(after)) == ([("deliver/0", 250)], [("deliver/0", 50)])


def test_slices_that_were_in_the_slow_lane_stay_there() -> None:
    turns = replayed([record("a"), record("b")], policy_set(), slowed=frozenset({"b"}))
    assert [(turn.slice_id, turn.lane) for turn in turns] == [("a", "fast"), ("b", "slow")]


def test_an_edited_limit_moves_a_campaign_to_its_slow_lane_once_it_is_measured() -> None:
    rule = {"per_user_p95": "1ms", "batches": 2, "at_least": "0s"}
    edited = {"profile": "edited", "lane": "fast", "matches": {"campaign": "c"}, "slow_when": rule}
    records = [record(f"a/{n}", users=100, takes=[200]) for n in range(4)]  # 2 ms a user
    turns = replayed(records, policy_set(profiles=[edited]), rejudged=frozenset({"c"}))
    assert [(turn.slice_id, turn.lane, turn.claimed) for turn in turns] == [
        ("a/0", "fast", 0),
        ("a/1", "fast", 200),
        ("a/2", "slow", 400),
        ("a/3", "slow", 600),
    ]


def test_a_queued_message_of_a_campaign_that_was_slowed_moves_to_the_slow_lane() -> None:
    rule = {"per_user_p95": "1ms", "batches": 1, "at_least": "0s"}
    edited = {"profile": "edited", "lane": "fast", "matches": {"campaign": "c"}, "slow_when": rule}
    policies = policy_set(profiles=[edited], lanes={"fast": {"depth": 4}})
    turns = replayed([record(f"a/{n}", users=100, takes=[200]) for n in range(3)], policies, rejudged=frozenset({"c"}))
    assert [turn.lane for turn in turns] == ["fast", "slow", "slow"]


def test_a_record_without_turns_is_left_out() -> None:
    unknown = SliceRecord("old", "shop", "c", SliceKind.DUE, 0, (), worked=10)
    assert claims(replayed([unknown, record("a")], policy_set())) == [("a", 0)]


def test_the_clock_adds_delivering_slices_once_the_campaign_has_no_other() -> None:
    fleets = {"deliver": {"lanes": ["deliver"], "threads": 4}}
    records = [record("handed/0", takes=[300], kind=SliceKind.DELIVER)]
    records += [record(f"1/{n}", at=100, kind=SliceKind.DELIVER, whole=True) for n in range(2)]
    records += [record(f"2/{n}", at=200, kind=SliceKind.DELIVER, takes=[50], whole=True) for n in range(3)]
    records += [record("other/0", at=100, kind=SliceKind.DELIVER, whole=True, campaign="other")]
    turns = replayed(records, policy_set(fleets=fleets))
    assert claims(turns) == [("handed/0", 0), ("other/0", 100), ("1/0", 300), ("1/1", 300), ("2/2", 300)]
    assert {turn.slice_id: turn.held for turn in turns[2:]} == {"1/0": 100, "1/1": 100, "2/2": 50}
    assert {turn.wait for turn in turns} == {0}, "what the clock has not added yet does not wait"
