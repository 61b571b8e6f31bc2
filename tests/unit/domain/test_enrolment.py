"""An enrolment is one document; its values answer questions about themselves."""

from __future__ import annotations

import pytest

from engine.domain.enrolment import Outgoing
from engine.domain.keys import user_suffix
from engine.domain.lifecycle import DeliveryState, ExitReason
from tests.support.decision_cases import DAY, NOW, enrolment


def test_an_enrolment_holds_the_suffix_of_its_user() -> None:
    assert enrolment(name="a/b").suffix == user_suffix("a/b")


def test_an_enrolment_is_active_until_it_ends() -> None:
    assert enrolment().active
    assert not enrolment(ended=(ExitReason.GOAL, NOW)).active


@pytest.mark.parametrize(
    ("settled", "since"), [([], NOW - DAY), ([("one", NOW - 5)], NOW - 5), ([("one", NOW - 2 * DAY)], NOW - DAY)]
)
def test_idle_time_counts_from_the_later_of_entry_and_last_settlement(
    settled: list[tuple[str, int]], since: int
) -> None:
    assert enrolment(entered_at=NOW - DAY, settled=settled).idle_since == since


def test_a_message_is_settled_under_any_of_its_names() -> None:
    written_to = enrolment(settled=[("old-name", NOW)])
    assert written_to.has_settled(frozenset({"new-name", "old-name"}))
    assert not written_to.has_settled(frozenset({"new-name"}))


def test_an_unsettled_delivery_is_not_settled() -> None:
    assert not enrolment(outgoing="one").has_settled(frozenset({"one"}))


def test_a_new_delivery_has_no_attempts() -> None:
    chosen = Outgoing("one", DeliveryState.QUEUED, NOW, NOW)
    assert (chosen.attempts, chosen.token, chosen.retry_at) == (0, None, None)
