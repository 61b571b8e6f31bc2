"""What a forecast takes from the record: where deliveries came from, how fast the clock was, who was slowed."""

from __future__ import annotations

from dataclasses import replace

from engine.domain.slice_record import SliceRecord, Turn
from engine.domain.work import SliceKind
from engine.pipeline.insight.lane_simulation import Origin
from engine.pipeline.insight.policy_forecast import REACTION, as_recorded, origins, reaction_of, slowed
from tests.support.recorded_slices import facts, policy_set, record


def waited(name: str, at: int, wait: int, *, takes: int = 100, campaign: str = "c") -> SliceRecord:
    """Return a slice that waited so many ms for a thread of the lane `fast`."""
    turn = Turn(0, wait, wait + takes)
    return SliceRecord(name, "shop", campaign, SliceKind.DUE, at, (turn,), worked=takes, lane="fast")


def test_a_delivery_comes_from_the_turn_of_its_campaign_that_ran_over_its_range() -> None:
    low, high = (record(name, takes=[100, 100], first=name, until=name + "z") for name in ("0", "8"))
    other = record("9", campaign="other", takes=[200], first="", until="z")
    made = record("made", at=150, kind=SliceKind.DELIVER, first="8/u1")
    assert origins([low, high, other, made]) == {"made": Origin("8", 1, 50)}


def test_a_delivery_that_the_clock_added_comes_from_any_turn_of_its_campaign_at_that_time() -> None:
    deciding = record("8", takes=[100], first="8", until="9")
    made = record("made", at=130, kind=SliceKind.DELIVER, first="0", whole=True)
    late = record("late", at=5_000, kind=SliceKind.DELIVER, first="0", whole=True)
    assert origins([deciding, made, late]) == {"made": Origin("8", 0, 130)}


def test_the_clocks_reaction_is_what_uncontended_slices_waited() -> None:
    idle = [waited(str(number), number * 1_000, 20 + number) for number in range(5)]
    crowd = [waited(f"crowd/{number}", 10_000, 30 + number * 100) for number in range(5)]
    records = {one.id: one for one in (*idle, *crowd)}
    known = {"c": facts("c")}
    reaction = reaction_of(as_recorded(records.values(), known, policy_set()), records, policy_set(), known)
    assert reaction.lanes == {"fast": [20, 21, 22, 23, 24, 30]}, "of a crowd only the first found an idle thread"
    assert reaction.of("slow") == reaction.general


def test_a_short_record_leaves_the_reaction_at_its_default() -> None:
    records = {"a": waited("a", 0, 5_000)}
    known = {"c": facts("c")}
    turns = as_recorded(records.values(), known, policy_set())
    assert reaction_of(turns, records, policy_set(), known).of("fast") == [REACTION]


def test_slices_count_in_the_lane_where_they_were_enqueued_or_would_be_today() -> None:
    records = [record("a", lane="gone"), record("b")]
    assert [turn.lane for turn in as_recorded(records, {"c": facts("c")}, policy_set())] == ["gone", "fast"]


def test_a_slice_in_the_slow_lane_of_a_quick_campaign_was_slowed() -> None:
    records = [record("a", lane="fast"), record("b", lane="slow"), record("c", lane="gone"), record("d")]
    assert slowed(records, {"c": facts("c")}, policy_set()) == {"b"}
    assert slowed(records, {"c": replace(facts("c"), slowed=True)}, policy_set()) == {"b", "d"}, "as it is today"
