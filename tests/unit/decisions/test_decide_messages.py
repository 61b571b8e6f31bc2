"""The next message, its send time, and how long the answer holds (`docs/semantics.md`, section 2: 5 and 6)."""

from __future__ import annotations

import pytest

from engine.decisions.decide import Wait
from tests.support.looks import DAY, GOLD, HOUR, NOW, ORDER, Someone, campaign, look, message, sends, stay

LONG_FIRST = [message("one", wait="5d"), message("two")]
SEEN = {"seen": {"older_than": "3d"}}


def test_the_first_message_is_sent_at_the_entry_plus_its_wait_to_the_millisecond() -> None:
    waits = campaign(messages=LONG_FIRST)
    early = look(waits, Someone(), stay(entered_at=NOW - 5 * DAY + 1))
    assert (early.outcome, early.holds_until) == (Wait(), NOW + 1)
    assert sends(look(waits, Someone(), stay(entered_at=NOW - 5 * DAY))) == "one"


def test_the_next_message_counts_from_the_last_settled_one_and_not_from_the_entry() -> None:
    settled = stay(entered_at=NOW - 9 * DAY, settled=[("one", NOW - 2 * DAY + HOUR)])
    decision = look(campaign(), Someone(), settled)
    assert (decision.outcome, decision.holds_until) == (Wait(), NOW + HOUR)
    assert sends(look(campaign(), Someone(), settled, NOW + HOUR)) == "two"


def test_no_later_message_overtakes_one_that_waits() -> None:
    assert look(campaign(messages=LONG_FIRST), Someone(), stay()).outcome == Wait()


def test_a_message_whose_own_rule_fails_is_passed_over_and_the_next_one_is_sent() -> None:
    picky = campaign(messages=[message("one", when={"points": 5}), message("two")])
    assert sends(look(picky, Someone(), stay())) == "two"


def test_a_message_that_was_passed_over_may_still_follow_later() -> None:
    picky = campaign(messages=[message("one", when={"points": 5}), message("two")])
    after_two = stay(settled=[("two", NOW - DAY)])
    assert look(picky, Someone(), after_two).outcome == Wait()
    assert sends(look(picky, Someone({**GOLD, "points": 5}), after_two)) == "one"


def test_a_message_that_is_not_settled_keeps_the_stay_open_though_its_rule_fails() -> None:
    picky = campaign(messages=[message("one"), message("two", when={"points": 5})])
    decision = look(picky, Someone(), stay(settled=[("one", NOW - DAY)]))
    assert (decision.outcome, decision.holds_until) == (Wait(), None)


def test_nothing_is_chosen_while_a_message_is_on_its_way() -> None:
    assert look(campaign(), Someone(), stay(outgoing="one")).outcome == Wait()
    unsettled = stay(entered_at=NOW - 9 * DAY, outgoing="two", settled=[("one", NOW - 8 * DAY)])
    assert look(campaign(), Someone(), unsettled).outcome == Wait()


def test_a_new_message_reaches_who_is_still_inside_in_its_place() -> None:
    added = campaign(messages=[message("zero"), message("one"), message("two")], revision=2)
    assert sends(look(added, Someone(), stay(settled=[("one", NOW - DAY)]))) == "zero"


def test_a_message_that_the_campaign_has_no_more_stays_settled_and_asks_for_nothing() -> None:
    fewer = campaign(messages=[message("two")], revision=2)
    assert sends(look(fewer, Someone(), stay(settled=[("one", NOW - 3 * DAY)]))) == "two"


# 6. how long the answer holds
def test_an_answer_without_time_in_it_holds_for_ever() -> None:
    assert look(campaign(messages=[message("one", when={"points": 5})]), Someone(), stay()).holds_until is None


def test_the_inactivity_window_is_left_out_of_what_holds() -> None:
    waits = campaign(messages=[message("one", wait="60d")])
    assert look(waits, Someone(), stay(entered_at=NOW)).holds_until == NOW + 60 * DAY


def test_the_answer_holds_until_the_audience_could_flip() -> None:
    lapsed = campaign(audience={"seen": {"within": "10d"}}, messages=[message("one", wait="30d")])
    assert look(lapsed, Someone({"seen": NOW - 4 * DAY}), stay()).holds_until == NOW + 6 * DAY


def test_the_audience_does_not_shorten_it_where_unmatched_users_stay() -> None:
    lapsed = campaign(
        audience={"seen": {"within": "10d"}}, messages=[message("one", wait="30d")], exit={"unmatched": False}
    )
    assert look(lapsed, Someone({"seen": NOW - 4 * DAY}), stay(entered_at=NOW)).holds_until == NOW + 30 * DAY


def test_the_answer_holds_until_the_exit_rule_could_flip() -> None:
    decision = look(campaign(exit={"when": SEEN}), Someone({**GOLD, "seen": NOW - DAY}), stay(outgoing="one"))
    assert (decision.outcome, decision.holds_until) == (Wait(), NOW + 2 * DAY)


def test_the_answer_holds_until_the_goal_on_fields_could_flip() -> None:
    decision = look(campaign(goal=SEEN), Someone({**GOLD, "seen": NOW - DAY}), stay(outgoing="one"))
    assert (decision.outcome, decision.holds_until) == (Wait(), NOW + 2 * DAY)


def test_the_answer_holds_until_a_passed_over_message_could_come_to_match() -> None:
    picky = campaign(messages=[message("one", when=SEEN), message("two", wait="30d")])
    decision = look(picky, Someone({**GOLD, "seen": NOW - DAY}), stay(entered_at=NOW))
    assert (decision.outcome, decision.holds_until) == (Wait(), NOW + 2 * DAY)


def test_a_message_on_its_way_is_not_hurried_by_rules_of_other_messages() -> None:
    picky = campaign(messages=[message("one"), message("two", when=SEEN)])
    decision = look(picky, Someone({**GOLD, "seen": NOW - DAY}), stay(outgoing="one"))
    assert (decision.outcome, decision.holds_until) == (Wait(), None)


@pytest.mark.parametrize(("inside", "days"), [(1, 29), (29, 1)])
def test_the_answer_holds_until_an_event_leaves_the_window(inside: int, days: int) -> None:
    buyers = campaign(
        audience={"event": {"name": ORDER, "within": "30d"}}, messages=[message("one", when={"points": 5})]
    )
    bought = Someone(events=[(ORDER, NOW - inside * DAY, {})])
    assert look(buyers, bought, stay()).holds_until == NOW + days * DAY
