"""The table of legal transitions, and the page that is drawn from it."""

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
    RunState,
    SkipReason,
    SliceState,
    StayState,
    check_transition,
)
from engine.errors import IllegalTransition
from tests.unit.lifecycle_chart import PAGE, REWRITE, page

C, D = CampaignState, DeliveryState
MACHINES: tuple[type[StrEnum], ...] = (CampaignState, StayState, DeliveryState, RunState, SliceState)
PAIRS = [(before, after) for states in MACHINES for before in states for after in states]


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), f"docs/lifecycle.md is not current; write it anew: {REWRITE}"


def test_every_state_has_a_sentence_and_a_row() -> None:
    everything = {state for states in MACHINES for state in states}
    assert set(SENTENCES) == set(TRANSITIONS) == everything
    assert set(SKIPPED_BECAUSE) == set(SkipReason)
    assert all(sentence.endswith(".") for sentence in [*SENTENCES.values(), *SKIPPED_BECAUSE.values()])


def test_a_state_leads_only_to_states_of_its_own_kind() -> None:
    assert all(type(after) is type(before) for before, ways in TRANSITIONS.items() for after in ways)


@pytest.mark.parametrize("states", MACHINES)
def test_every_state_can_be_reached_from_the_first(states: type[StrEnum]) -> None:
    reached, ahead = set(), [next(iter(states))]
    while ahead:
        state = ahead.pop()
        if state not in reached:
            reached.add(state)
            ahead += TRANSITIONS[state]
    assert reached == set(states)


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_a_transition_is_made_where_the_table_has_it_and_refused_where_it_has_not(
    before: StrEnum, after: StrEnum
) -> None:
    if after in TRANSITIONS[before]:
        assert check_transition(before, after) is after
        return
    with pytest.raises(IllegalTransition, match=f"{before} does not lead to {after}; it leads to "):
        check_transition(before, after)


def test_a_refusal_names_what_is_possible() -> None:
    with pytest.raises(IllegalTransition) as refused:
        check_transition(C.PAUSED, C.FINISHED)
    assert str(refused.value) == "paused does not lead to finished; it leads to cancelled, draining, live"
    with pytest.raises(IllegalTransition, match="it leads to nothing"):
        check_transition(C.CANCELLED, C.LIVE)


def test_a_delivery_reaches_a_provider_only_through_attempting() -> None:
    assert {before for before, ways in TRANSITIONS.items() if D.SENT in ways} == {D.ATTEMPTING, D.UNKNOWN}
    assert D.SENT not in TRANSITIONS[D.QUEUED]


def test_what_was_sent_is_never_sent_again() -> None:
    assert TRANSITIONS[D.SENT] == TRANSITIONS[D.SKIPPED] == frozenset()


def test_only_a_failed_delivery_can_be_queued_again() -> None:
    assert {state for state in SETTLED if D.QUEUED in TRANSITIONS[state]} == {D.FAILED}


def test_the_truth_may_arrive_late_for_an_unknown_delivery() -> None:
    assert TRANSITIONS[D.UNKNOWN] == {D.SENT, D.FAILED}


def test_settled_are_all_but_those_on_their_way() -> None:
    assert set(D) - SETTLED == {D.QUEUED, D.ATTEMPTING}


def test_a_stay_that_ended_stays_ended() -> None:
    assert TRANSITIONS[StayState.ENDED] == frozenset()


def test_a_cancelled_campaign_is_never_revived_and_a_finished_one_only_to_drain() -> None:
    assert TRANSITIONS[C.CANCELLED] == frozenset()
    assert TRANSITIONS[C.FINISHED] == {C.DRAINING}
