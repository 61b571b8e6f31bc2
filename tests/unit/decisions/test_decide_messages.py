"""The next message, its send time, and how long the answer holds (`docs/semantics.md`, section 2: 5 and 6)."""

from __future__ import annotations

import pytest

from engine.decisions.decide import Wait
from tests.support.decision_cases import (
    DAY,
    GOLD,
    HOUR,
    NOW,
    ORDER,
    Someone,
    campaign,
    enrolment,
    evaluate,
    message,
    sends,
)

LONG_FIRST = [message("one", wait="5d"), message("two")]
SEEN = {"seen": {"older_than": "3d"}}


def test_the_first_message_is_sent_at_the_entry_plus_its_wait_to_the_millisecond() -> None:
    waits = campaign(messages=LONG_FIRST)
    early = evaluate(waits, Someone(), enrolment(entered_at=NOW - 5 * DAY + 1))
    assert (early.outcome, early.holds_until) == (Wait(), NOW + 1)
    assert sends(evaluate(waits, Someone(), enrolment(entered_at=NOW - 5 * DAY))) == "one"


def test_the_wait_of_the_next_message_counts_from_the_last_settled_one() -> None:
    settled = enrolment(entered_at=NOW - 9 * DAY, settled=[("one", NOW - 2 * DAY + HOUR)])
    decision = evaluate(campaign(), Someone(), settled)
    assert (decision.outcome, decision.holds_until) == (Wait(), NOW + HOUR)
    assert sends(evaluate(campaign(), Someone(), settled, NOW + HOUR)) == "two"


def test_no_later_message_overtakes_a_waiting_one() -> None:
    assert evaluate(campaign(messages=LONG_FIRST), Someone(), enrolment()).outcome == Wait()


def test_a_message_whose_rule_fails_is_passed_over_for_the_next_one() -> None:
    picky = campaign(messages=[message("one", when={"points": 5}), message("two")])
    assert sends(evaluate(picky, Someone(), enrolment())) == "two"


def test_a_message_that_was_passed_over_may_follow_later() -> None:
    picky = campaign(messages=[message("one", when={"points": 5}), message("two")])
    after_two = enrolment(settled=[("two", NOW - DAY)])
    assert evaluate(picky, Someone(), after_two).outcome == Wait()
    assert sends(evaluate(picky, Someone({**GOLD, "points": 5}), after_two)) == "one"


def test_an_unsettled_message_keeps_the_enrolment_open_though_its_rule_fails() -> None:
    picky = campaign(messages=[message("one"), message("two", when={"points": 5})])
    decision = evaluate(picky, Someone(), enrolment(settled=[("one", NOW - DAY)]))
    assert (decision.outcome, decision.holds_until) == (Wait(), None)


def test_no_message_is_chosen_while_one_is_unsettled() -> None:
    assert evaluate(campaign(), Someone(), enrolment(outgoing="one")).outcome == Wait()
    unsettled = enrolment(entered_at=NOW - 9 * DAY, outgoing="two", settled=[("one", NOW - 8 * DAY)])
    assert evaluate(campaign(), Someone(), unsettled).outcome == Wait()


def test_a_new_message_reaches_enrolled_users_in_its_place() -> None:
    added = campaign(messages=[message("zero"), message("one"), message("two")], revision=2)
    assert sends(evaluate(added, Someone(), enrolment(settled=[("one", NOW - DAY)]))) == "zero"


def test_a_removed_message_stays_settled_without_effect() -> None:
    fewer = campaign(messages=[message("two")], revision=2)
    assert sends(evaluate(fewer, Someone(), enrolment(settled=[("one", NOW - 3 * DAY)]))) == "two"


# 6. how long the answer holds
def test_a_decision_without_time_holds_for_ever() -> None:
    assert evaluate(campaign(messages=[message("one", when={"points": 5})]), Someone(), enrolment()).holds_until is None


def test_the_inactivity_window_does_not_limit_the_decision() -> None:
    waits = campaign(messages=[message("one", wait="60d")])
    assert evaluate(waits, Someone(), enrolment(entered_at=NOW)).holds_until == NOW + 60 * DAY


def test_the_decision_holds_until_the_audience_could_flip() -> None:
    lapsed = campaign(audience={"seen": {"within": "10d"}}, messages=[message("one", wait="30d")])
    assert evaluate(lapsed, Someone({"seen": NOW - 4 * DAY}), enrolment()).holds_until == NOW + 6 * DAY


def test_the_audience_does_not_limit_the_decision_if_unmatched_users_stay() -> None:
    lapsed = campaign(
        audience={"seen": {"within": "10d"}}, messages=[message("one", wait="30d")], exit={"unmatched": False}
    )
    assert evaluate(lapsed, Someone({"seen": NOW - 4 * DAY}), enrolment(entered_at=NOW)).holds_until == NOW + 30 * DAY


def test_the_decision_holds_until_the_exit_rule_could_flip() -> None:
    decision = evaluate(campaign(exit={"when": SEEN}), Someone({**GOLD, "seen": NOW - DAY}), enrolment(outgoing="one"))
    assert (decision.outcome, decision.holds_until) == (Wait(), NOW + 2 * DAY)


def test_the_decision_holds_until_the_field_goal_could_flip() -> None:
    decision = evaluate(campaign(goal=SEEN), Someone({**GOLD, "seen": NOW - DAY}), enrolment(outgoing="one"))
    assert (decision.outcome, decision.holds_until) == (Wait(), NOW + 2 * DAY)


def test_the_decision_holds_until_a_passed_over_message_could_match() -> None:
    picky = campaign(messages=[message("one", when=SEEN), message("two", wait="30d")])
    decision = evaluate(picky, Someone({**GOLD, "seen": NOW - DAY}), enrolment(entered_at=NOW))
    assert (decision.outcome, decision.holds_until) == (Wait(), NOW + 2 * DAY)


def test_rules_of_other_messages_do_not_limit_the_decision_of_an_unsettled_one() -> None:
    picky = campaign(messages=[message("one"), message("two", when=SEEN)])
    decision = evaluate(picky, Someone({**GOLD, "seen": NOW - DAY}), enrolment(outgoing="one"))
    assert (decision.outcome, decision.holds_until) == (Wait(), None)


@pytest.mark.parametrize(("inside", "days"), [(1, 29), (29, 1)])
def test_the_decision_holds_until_an_event_leaves_the_window(inside: int, days: int) -> None:
    buyers = campaign(
        audience={"event": {"name": ORDER, "within": "30d"}}, messages=[message("one", when={"points": 5})]
    )
    bought = Someone(events=[(ORDER, NOW - inside * DAY, {})])
    assert evaluate(buyers, bought, enrolment()).holds_until == NOW + days * DAY
