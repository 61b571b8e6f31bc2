"""The table of legal transitions, and the page that `lifecycle_chart.py` draws from it."""

from __future__ import annotations

from enum import StrEnum

import pytest

from engine.domain.lifecycle import (
    SENTENCES,
    SETTLED,
    SKIPPED_BECAUSE,
    TRANSITIONS,
    CampaignState,
    DeliveryState,
    EnrolmentState,
    RunState,
    SkipReason,
    SliceState,
    check_transition,
)
from engine.errors import IllegalTransition
from tests.unit.domain.lifecycle_chart import PAGE, REWRITE, page

C, D = CampaignState, DeliveryState
MACHINES: tuple[type[StrEnum], ...] = (CampaignState, EnrolmentState, DeliveryState, RunState, SliceState)
PAIRS = [(before, after) for states in MACHINES for before in states for after in states]


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), f"docs/lifecycle.md is not current; write it anew: {REWRITE}"


def test_every_state_has_a_sentence_and_a_row() -> None:
    assert set(SENTENCES) == set(TRANSITIONS) == set(MACHINES)
    for states in MACHINES:
        assert set(SENTENCES[states]) == set(TRANSITIONS[states]) == set(states)
    assert set(SKIPPED_BECAUSE) == set(SkipReason)
    reported = [*SKIPPED_BECAUSE.values(), *(text for sentences in SENTENCES.values() for text in sentences.values())]
    assert all(sentence.endswith(".") for sentence in reported)


def test_equal_state_names_of_two_machines_have_separate_sentences() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "| `dropped` | A resume replaced it with a newer run. |" in page
    assert "| `dropped` | Given up unclaimed with its run. |" in page


def test_a_transition_stays_within_its_state_machine() -> None:
    assert all(
        type(after) is states
        for states in MACHINES
        for transition in TRANSITIONS[states].values()
        for after in transition
    )
    assert all(type(before) is states for states in MACHINES for before in [*TRANSITIONS[states], *SENTENCES[states]])


@pytest.mark.parametrize("states", MACHINES)
def test_every_state_is_reachable_from_the_first(states: type[StrEnum]) -> None:
    reached, ahead = set(), [next(iter(states))]
    while ahead:
        state = ahead.pop()
        if state not in reached:
            reached.add(state)
            ahead += TRANSITIONS[states][state]
    assert reached == set(states)


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_only_transitions_of_the_table_are_allowed(before: StrEnum, after: StrEnum) -> None:
    if after in TRANSITIONS[type(before)][before]:
        assert check_transition(before, after) is after
        return
    with pytest.raises(IllegalTransition, match=f"{before} does not lead to {after}; it leads to "):
        check_transition(before, after)


def test_a_refusal_names_the_possible_transitions() -> None:
    with pytest.raises(IllegalTransition) as refused:
        check_transition(C.PAUSED, C.FINISHED)
    assert str(refused.value) == "paused does not lead to finished; it leads to cancelled, draining, live"
    with pytest.raises(IllegalTransition, match="it leads to nothing"):
        check_transition(C.CANCELLED, C.LIVE)


def test_a_delivery_reaches_a_provider_only_through_attempting() -> None:
    assert {before for before, transition in TRANSITIONS[D].items() if D.SENT in transition} == {
        D.ATTEMPTING,
        D.UNKNOWN,
    }
    assert D.SENT not in TRANSITIONS[D][D.QUEUED]


def test_a_sent_delivery_is_never_sent_again() -> None:
    assert TRANSITIONS[D][D.SENT] == TRANSITIONS[D][D.SKIPPED] == frozenset()


def test_only_a_failed_delivery_can_be_queued_again() -> None:
    assert {state for state in SETTLED if D.QUEUED in TRANSITIONS[D][state]} == {D.FAILED}


def test_an_unknown_delivery_may_be_settled_later() -> None:
    assert TRANSITIONS[D][D.UNKNOWN] == {D.SENT, D.FAILED}


def test_settled_states_are_all_except_queued_and_attempting() -> None:
    assert set(D) - SETTLED == {D.QUEUED, D.ATTEMPTING}


def test_an_ended_enrolment_stays_ended() -> None:
    assert TRANSITIONS[EnrolmentState][EnrolmentState.ENDED] == frozenset()


def test_a_cancelled_campaign_never_resumes_and_a_finished_one_only_drains() -> None:
    assert TRANSITIONS[C][C.CANCELLED] == frozenset()
    assert TRANSITIONS[C][C.FINISHED] == {C.DRAINING}
