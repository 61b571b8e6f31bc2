"""Users without an active enrolment: who enters, when, and again (`docs/semantics.md`, section 2)."""

from __future__ import annotations

import pytest

from engine.decisions.decide import Ignore, Wait
from engine.domain.keys import arm
from engine.domain.lifecycle import CampaignState, ExitReason, SkipReason
from tests.support.decision_cases import (
    DAY,
    GOLD,
    NOW,
    ORDER,
    Someone,
    campaign,
    enrolment,
    evaluate,
    exits,
    message,
    sends,
    skips,
)

AGAIN = {"entry": {"again_after": "10d"}}
LEFT = (ExitReason.UNMATCHED, NOW - 10 * DAY)


def test_a_matching_user_enters_and_gets_the_first_message_in_one_evaluation() -> None:
    decision = evaluate(campaign(), Someone())
    assert (decision.enters, sends(decision)) == (1, "one")


def test_a_first_message_with_a_wait_counts_from_the_entry() -> None:
    decision = evaluate(campaign(messages=[message("one", wait="3d")]), Someone())
    assert (decision.enters, decision.outcome, decision.holds_until) == (1, Wait(), NOW + 3 * DAY)


def test_an_unmatched_user_does_not_enter() -> None:
    assert evaluate(campaign(), Someone({"plan": "free"})).outcome == Ignore()


def test_a_deleted_user_does_not_enter() -> None:
    assert evaluate(campaign(), Someone(deleted=True)).outcome == Ignore()


@pytest.mark.parametrize("state", [state for state in CampaignState if state is not CampaignState.LIVE])
def test_no_user_enters_a_campaign_that_is_not_live(state: CampaignState) -> None:
    assert evaluate(campaign(state=state), Someone()).enters is None
    assert evaluate(campaign(state=state, launching=True), Someone()).enters is None


def test_a_one_off_campaign_enrols_only_at_its_launch() -> None:
    assert evaluate(campaign(kind="one_off"), Someone()).outcome == Ignore()
    assert evaluate(campaign(kind="one_off", launching=True), Someone()).enters == 1


def test_a_user_who_already_meets_a_field_goal_is_not_enrolled() -> None:
    rich = Someone({**GOLD, "points": 5})
    assert evaluate(campaign(goal={"points": {"gte": 5}}), rich).outcome == Ignore()
    assert evaluate(campaign(goal={"points": {"gte": 6}}), rich).enters == 1


def test_a_goal_event_before_the_entry_does_not_block_it() -> None:
    bought = Someone(events=[(ORDER, NOW - 1, {})])
    decision = evaluate(campaign(goal={"event": {"name": ORDER}}), bought)
    assert (decision.enters, sends(decision), decision.converted_at) == (1, "one", None)


def test_an_event_at_the_very_moment_of_the_entry_is_not_after_it() -> None:
    bought = Someone(events=[(ORDER, NOW, {})])
    assert evaluate(campaign(goal={"event": {"name": ORDER}}), bought).converted_at is None


def test_once_allows_no_second_enrolment() -> None:
    decision = evaluate(campaign(), Someone(), enrolment(ended=LEFT))
    assert (decision.outcome, decision.holds_until) == (Ignore(), None)


def test_again_after_allows_re_entry_at_the_last_end_plus_the_pause_to_the_millisecond() -> None:
    early = evaluate(campaign(**AGAIN), Someone(), enrolment(ended=(ExitReason.COMPLETED, NOW - 10 * DAY + 1)))
    assert (early.outcome, early.holds_until) == (Ignore(), NOW + 1)
    again = evaluate(campaign(**AGAIN), Someone(), enrolment(ended=(ExitReason.COMPLETED, NOW - 10 * DAY)))
    assert (again.enters, sends(again)) == (2, "one")


def test_again_after_needs_no_evaluation_at_which_the_user_did_not_match() -> None:
    completed = enrolment(ended=(ExitReason.COMPLETED, NOW - 10 * DAY), settled=[("one", NOW - 12 * DAY)])
    assert evaluate(campaign(**AGAIN), Someone(), completed).enters == 2


def test_again_after_counts_from_the_end_and_not_from_the_entry() -> None:
    long = enrolment(entered_at=NOW - 40 * DAY, ended=(ExitReason.GOAL, NOW - 9 * DAY))
    assert evaluate(campaign(**AGAIN), Someone(), long).outcome == Ignore()


def test_no_user_re_enters_while_the_intake_is_closed() -> None:
    draining = campaign(**AGAIN, state=CampaignState.DRAINING)
    assert evaluate(draining, Someone(), enrolment(ended=LEFT)).outcome == Ignore()


def test_an_enrolment_may_end_in_the_evaluation_that_opens_it() -> None:
    decision = evaluate(campaign(exit={"when": {"points": 1}}, **AGAIN), Someone({**GOLD, "points": 1}))
    assert (decision.enters, exits(decision)) == (1, ExitReason.UNMATCHED)
    assert decision.holds_until == NOW + 10 * DAY


def test_a_message_of_an_earlier_enrolment_is_sent_again_in_the_next() -> None:
    earlier = enrolment(ended=LEFT, settled=[("one", NOW - 20 * DAY), ("two", NOW - 18 * DAY)])
    assert sends(evaluate(campaign(**AGAIN), Someone(), earlier)) == "one"


def test_a_conversion_of_the_last_enrolment_is_kept_when_the_next_begins() -> None:
    bought = Someone(events=[(ORDER, NOW - 5 * DAY, {})])
    last = enrolment(entered_at=NOW - 12 * DAY, ended=LEFT)
    decision = evaluate(campaign(**AGAIN, goal={"event": {"name": ORDER}, "within": "14d"}), bought, last)
    assert (decision.enters, decision.converted_at) == (2, NOW - 5 * DAY)


def test_the_holdout_is_chosen_by_arm_and_equal_in_every_enrolment() -> None:
    half = campaign(holdout="50%", **AGAIN)
    for name in map(str, range(100)):
        first, second = (evaluate(half, Someone(name=name), last) for last in (None, enrolment(ended=LEFT, name=name)))
        assert first.holdout == second.holdout == (arm("c1", "holdout", name) < 0.5)
        assert (skips(first) == ("one", SkipReason.HOLDOUT)) is first.holdout
        assert (sends(first) == "one") is not first.holdout
