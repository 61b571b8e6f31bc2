"""When the write that settles the last delivery also ends the enrolment, and the state it leaves."""

from __future__ import annotations

from typing import Any

import pytest

from engine.decisions.completion import completion
from engine.domain.settling import Completion
from tests.support.decision_cases import DAY, NOW, ORDER, campaign, message

HALF_DAY = DAY // 2
ONE_OFF: dict[str, Any] = {"kind": "one_off", "messages": [message("one")]}
SERIES: dict[str, Any] = {"kind": "one_off", "messages": [message("one"), message("two", wait="2d")]}


def test_the_only_message_of_an_unconditional_campaign_completes() -> None:
    assert completion(campaign(**ONE_OFF, revision=4), [], "one", NOW) == Completion(4, None)


def test_a_series_completes_with_its_last_message() -> None:
    series = campaign(**SERIES)
    assert completion(series, [], "one", NOW) is None
    assert completion(series, [], "two", NOW) is None, "an edit put the first one before it"
    assert completion(series, ["one"], "two", NOW) == Completion(1, None)


def test_a_message_whose_rule_fails_now_may_follow_later() -> None:
    ruled = campaign(kind="one_off", messages=[message("one", when={"points": 1}), message("two")])
    assert completion(ruled, [], "two", NOW) is None


def test_a_renamed_message_counts_as_settled_and_a_removed_one_leaves_nothing() -> None:
    renamed = campaign(**SERIES, renamed={"one": ["first"]})
    assert completion(renamed, ["first"], "two", NOW) is not None
    assert completion(campaign(**ONE_OFF), ["one"], "gone", NOW) is not None
    assert completion(campaign(**ONE_OFF), [], "gone", NOW) is None


def test_a_user_who_may_enter_again_is_due_at_that_time() -> None:
    again = campaign(audience={"all": []}, messages=[message("one")], entry={"again_after": "12h"})
    assert completion(again, [], "one", NOW) == Completion(1, NOW + HALF_DAY)


@pytest.mark.parametrize(
    "asks",
    [
        {"goal": {"event": {"name": ORDER}}},
        {"goal": {"event": {"name": ORDER}, "exits": False}},
        {"goal": {"points": {"gte": 3}}},
        {"exit": {"when": {"points": 1}}},
        {"exit": {"unmatched": True}},
    ],
)
def test_a_campaign_with_conditions_leaves_completion_to_an_evaluation(asks: dict[str, Any]) -> None:
    assert completion(campaign(**ONE_OFF, **asks), [], "one", NOW) is None


def test_an_audience_of_everybody_needs_no_exit_check() -> None:
    welcome = {"messages": [message("one")], "exit": {"unmatched": True}}
    assert completion(campaign(audience={"all": []}, **welcome), [], "one", NOW) is not None
    assert completion(campaign(**welcome), [], "one", NOW) is None
