"""Active enrolments: the first applicable rule of `docs/semantics.md`, section 2, decides; tested rule by rule."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from engine.campaign.compiled import Facts
from engine.decisions.decide import Wait, decide
from engine.domain.enrolment import Settled
from engine.domain.lifecycle import CampaignState, DeliveryState, ExitReason, SkipReason
from tests.support.decision_cases import (
    DAY,
    GOLD,
    HOUR,
    NOW,
    ORDER,
    Patience,
    Someone,
    campaign,
    enrolment,
    evaluate,
    exits,
    message,
    sends,
    skips,
)

GONE = Someone({"plan": "free"})
BOUGHT = Someone(events=[(ORDER, NOW - HOUR, {})])
GOAL = {"goal": {"event": {"name": ORDER}, "within": "14d"}}
ALL_SETTLED = [("one", NOW - 3 * DAY), ("two", NOW - DAY)]


# 0. attempting, deleted, cancelled
@pytest.mark.parametrize("state", [CampaignState.LIVE, CampaignState.DRAINING, CampaignState.CANCELLED])
@pytest.mark.parametrize("user", [Someone(), GONE, Someone(deleted=True), replace(GONE, events=BOUGHT.events)])
def test_an_attempting_delivery_defers_every_transition(state: CampaignState, user: Someone) -> None:
    rules = campaign(**GOAL, exit={"when": {"plan": "free"}}, state=state)
    decision = evaluate(rules, user, enrolment(outgoing="one", attempting=True), inactivity=timedelta(minutes=1))
    assert (decision.outcome, decision.holds_until) == (Wait(), None)


def test_the_goal_counts_during_an_attempt_without_an_exit() -> None:
    decision = evaluate(campaign(**GOAL), BOUGHT, enrolment(outgoing="one", attempting=True))
    assert (decision.outcome, decision.converted_at) == (Wait(), NOW - HOUR)


def test_deletion_precedes_every_other_exit() -> None:
    cancelled = campaign(**GOAL, state=CampaignState.CANCELLED)
    assert exits(evaluate(cancelled, replace(BOUGHT, deleted=True), enrolment())) is ExitReason.DELETED


def test_a_missing_user_counts_as_deleted() -> None:
    assert exits(decide(campaign(), Patience(), Facts(None), enrolment(), NOW)) is ExitReason.DELETED


def test_cancellation_precedes_goal_and_rules() -> None:
    cancelled = campaign(**GOAL, exit={"when": dict(GOLD)}, state=CampaignState.CANCELLED)
    assert exits(evaluate(cancelled, BOUGHT, enrolment())) is ExitReason.CANCELLED
    assert exits(evaluate(cancelled, BOUGHT, enrolment(outgoing="one"))) is ExitReason.CANCELLED


# 1. the goal
def test_the_goal_precedes_the_exit_rule() -> None:
    decision = evaluate(campaign(**GOAL, exit={"when": dict(GOLD)}), BOUGHT, enrolment())
    assert (exits(decision), decision.converted_at) == (ExitReason.GOAL, NOW - HOUR)


def test_an_event_before_the_entry_never_counts_for_the_goal() -> None:
    early = Someone(events=[(ORDER, NOW - DAY - 1, {}), (ORDER, NOW - DAY, {})])
    decision = evaluate(campaign(**GOAL), early, enrolment(entered_at=NOW - DAY))
    assert (sends(decision), decision.converted_at) == ("one", None)


def test_the_first_event_after_the_entry_is_the_conversion() -> None:
    twice = Someone(events=[(ORDER, NOW - HOUR, {}), (ORDER, NOW - 2 * HOUR, {}), (ORDER, NOW - 2 * DAY, {})])
    assert evaluate(campaign(**GOAL), twice, enrolment()).converted_at == NOW - 2 * HOUR


def test_a_future_event_meets_no_goal_but_limits_the_decision() -> None:
    coming = Someone(events=[(ORDER, NOW + HOUR, {})])
    decision = evaluate(campaign(**GOAL), coming, enrolment(settled=[("one", NOW - HOUR)]))
    assert (decision.outcome, decision.holds_until) == (Wait(), NOW + HOUR)
    assert exits(evaluate(campaign(**GOAL), coming, enrolment(), NOW + HOUR)) is ExitReason.GOAL


@pytest.mark.parametrize(("after", "reached"), [(14 * DAY, True), (14 * DAY + 1, False)])
def test_the_goal_window_counts_from_the_entry_and_includes_its_last_moment(after: int, reached: bool) -> None:
    entered = NOW - 20 * DAY
    late = Someone(events=[(ORDER, entered + after, {})])
    decision = evaluate(campaign(**GOAL), late, enrolment(entered_at=entered))
    assert (exits(decision) is ExitReason.GOAL) is reached


def test_a_goal_on_an_event_property_needs_that_property() -> None:
    rule = {"goal": {"event": {"name": ORDER, "where": {"value": {"gt": "50.00"}}}}}
    small, large = (Someone(events=[(ORDER, NOW - HOUR, {"value": cents})]) for cents in (50_00, 50_01))
    assert evaluate(campaign(**rule), small, enrolment()).converted_at is None
    assert evaluate(campaign(**rule), large, enrolment()).converted_at == NOW - HOUR


def test_a_field_goal_counts_from_the_evaluation_that_sees_it() -> None:
    decision = evaluate(campaign(goal={"points": 5}), Someone({**GOLD, "points": 5}), enrolment())
    assert (exits(decision), decision.converted_at) == (ExitReason.GOAL, NOW)


def test_a_field_goal_met_at_the_entry_counts_at_once() -> None:
    decision = evaluate(campaign(goal={"points": 5}), Someone({**GOLD, "points": 5}), enrolment(entered_at=NOW))
    assert (exits(decision), decision.converted_at) == (ExitReason.GOAL, NOW)


def test_either_goal_counts_and_the_event_dates_it() -> None:
    either = campaign(goal={"any": [{"event": {"name": ORDER}}, {"points": 5}]})
    assert evaluate(either, Someone({**GOLD, "points": 5}), enrolment()).converted_at == NOW
    assert evaluate(either, Someone({**GOLD, "points": 5}, BOUGHT.events), enrolment()).converted_at == NOW - HOUR


def test_a_goal_without_exit_counts_and_the_enrolment_continues() -> None:
    decision = evaluate(campaign(goal={**GOAL["goal"], "exits": False}), BOUGHT, enrolment())
    assert (sends(decision), decision.converted_at) == ("one", NOW - HOUR)


def test_a_conversion_is_written_once() -> None:
    counted = campaign(goal={**GOAL["goal"], "exits": False})
    assert evaluate(counted, BOUGHT, enrolment(converted_at=NOW - 2 * HOUR)).converted_at is None


def test_a_conversion_already_written_still_ends_the_enrolment() -> None:
    assert exits(evaluate(campaign(**GOAL), Someone(), enrolment(converted_at=NOW - HOUR))) is ExitReason.GOAL


def test_a_conversion_counts_after_the_exit_while_the_window_is_open() -> None:
    left = enrolment(ended=(ExitReason.UNMATCHED, NOW - 2 * HOUR))
    assert evaluate(campaign(**GOAL), BOUGHT, left).converted_at == NOW - HOUR
    long_ago = enrolment(entered_at=NOW - 15 * DAY, ended=(ExitReason.UNMATCHED, NOW - 10 * DAY))
    assert evaluate(campaign(**GOAL), BOUGHT, long_ago).converted_at is None


# 2. the exit rule, and users that no longer match
def test_an_unmatched_user_exits_a_continuous_campaign() -> None:
    assert exits(evaluate(campaign(), GONE, enrolment())) is ExitReason.UNMATCHED


def test_an_unmatched_user_remains_in_a_one_off_campaign() -> None:
    assert sends(evaluate(campaign(kind="one_off"), GONE, enrolment())) == "one"


def test_the_unmatched_exit_can_be_switched_on_and_off() -> None:
    assert (
        exits(evaluate(campaign(kind="one_off", exit={"unmatched": True}), GONE, enrolment())) is ExitReason.UNMATCHED
    )
    assert sends(evaluate(campaign(exit={"unmatched": False}), GONE, enrolment())) == "one"


def test_the_exit_rule_ends_the_enrolment_of_a_matching_user() -> None:
    rule = campaign(exit={"when": {"points": {"lt": 0}}})
    assert exits(evaluate(rule, Someone({**GOLD, "points": -1}), enrolment())) is ExitReason.UNMATCHED


def test_an_exit_precedes_a_due_message_and_settles_a_queued_one() -> None:
    assert exits(evaluate(campaign(), GONE, enrolment(outgoing="one"))) is ExitReason.UNMATCHED


def test_enrolments_continue_while_a_campaign_drains() -> None:
    draining = campaign(state=CampaignState.DRAINING)
    assert sends(evaluate(draining, Someone(), enrolment())) == "one"
    assert exits(evaluate(draining, GONE, enrolment())) is ExitReason.UNMATCHED


# 3. inactivity
@pytest.mark.parametrize(("early", "inactive"), [(0, True), (1, False)])
def test_inactivity_ends_an_enrolment_at_the_window_to_the_millisecond(early: int, inactive: bool) -> None:
    entered = NOW - 10 * DAY + early
    waiting = campaign(messages=[message("one", when={"points": 1})])
    decision = evaluate(waiting, Someone(), enrolment(entered_at=entered), inactivity=timedelta(days=10))
    assert (exits(decision) is ExitReason.INACTIVE) is inactive


def test_inactivity_counts_from_the_last_settled_message() -> None:
    waiting = campaign(messages=[message("one"), message("two", when={"points": 1})])
    written_to = enrolment(entered_at=NOW - 30 * DAY, settled=[("one", NOW - 10 * DAY + 1)])
    assert exits(evaluate(waiting, Someone(), written_to, inactivity=timedelta(days=10))) is None


@pytest.mark.parametrize(("resumed", "inactive"), [(NOW - 10 * DAY + 1, False), (NOW - 10 * DAY, True)])
def test_inactivity_counts_from_the_last_resume(resumed: int, inactive: bool) -> None:
    waiting = campaign(messages=[message("one", when={"points": 1})], resumed_at=resumed)
    long = enrolment(entered_at=NOW - 60 * DAY)
    assert (exits(evaluate(waiting, Someone(), long, inactivity=timedelta(days=10))) is ExitReason.INACTIVE) is inactive


def test_no_enrolment_is_inactive_while_a_delivery_is_unsettled() -> None:
    old = enrolment(entered_at=NOW - 60 * DAY, outgoing="one")
    assert evaluate(campaign(), Someone(), old).outcome == Wait()


def test_inactivity_precedes_a_due_message_and_completion() -> None:
    old = enrolment(entered_at=NOW - 60 * DAY)
    assert exits(evaluate(campaign(), Someone(), old)) is ExitReason.INACTIVE
    done = replace(old, settled=(Settled("one", DeliveryState.SENT, NOW - 50 * DAY),), settled_at=NOW - 50 * DAY)
    assert exits(evaluate(campaign(messages=[message("one")]), Someone(), done)) is ExitReason.INACTIVE


# 4. completion
def test_an_enrolment_completes_when_every_message_is_settled() -> None:
    assert exits(evaluate(campaign(), Someone(), enrolment(settled=ALL_SETTLED))) is ExitReason.COMPLETED


@pytest.mark.parametrize("state", [state for state in DeliveryState if state.value not in ("queued", "attempting")])
def test_a_message_is_settled_however_it_ended_and_is_never_chosen_twice(state: DeliveryState) -> None:
    once = replace(enrolment(), settled=(Settled("one", state, NOW - HOUR),), settled_at=NOW - HOUR)
    assert exits(evaluate(campaign(messages=[message("one")]), Someone(), once)) is ExitReason.COMPLETED


def test_a_message_settled_under_an_old_name_is_settled() -> None:
    renamed = campaign(messages=[message("first", was="one")], renamed={"first": ["one"]}, revision=2)
    assert exits(evaluate(renamed, Someone(), enrolment(settled=[("one", NOW - DAY)]))) is ExitReason.COMPLETED


def test_an_ended_enrolment_with_again_after_is_due_when_the_pause_is_over() -> None:
    again = campaign(entry={"again_after": "10d"})
    assert evaluate(again, Someone(), enrolment(settled=ALL_SETTLED)).holds_until == NOW + 10 * DAY
    assert evaluate(campaign(), Someone(), enrolment(settled=ALL_SETTLED)).holds_until is None


# holdout and lateness
def test_a_holdout_walks_the_same_path_and_its_messages_settle_without_a_sender() -> None:
    kept = enrolment(holdout=True)
    assert skips(evaluate(campaign(), Someone(), kept)) == ("one", SkipReason.HOLDOUT)
    assert exits(evaluate(campaign(), GONE, kept)) is ExitReason.UNMATCHED
    waiting = evaluate(campaign(), Someone(), enrolment(holdout=True, settled=[("one", NOW - DAY)]))
    assert (waiting.outcome, waiting.holds_until) == (Wait(), NOW + DAY)


@pytest.mark.parametrize(("as_of", "late"), [(NOW, False), (NOW + 1, True)])
def test_not_after_skips_a_message_as_too_late(as_of: int, late: bool) -> None:
    limited = campaign(messages=[message("one", not_after="2026-12-01"), message("two")])
    assert (skips(evaluate(limited, Someone(), enrolment(), as_of)) == ("one", SkipReason.TOO_LATE)) is late
