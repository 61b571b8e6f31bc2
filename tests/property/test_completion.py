"""A settling write ends an enrolment as the next evaluation would, over random campaigns and users."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import event, given, settings
from hypothesis import strategies as st

from engine.decisions.completion import asks_users, completion
from engine.decisions.decide import Exit, Send, decide
from engine.domain.enrolment import Enrolment, Settled
from engine.domain.lifecycle import CampaignState, DeliveryState, ExitReason
from engine.pipeline.evaluation.evaluate import change_of
from tests.property.decide_reading import HALF, Rules, campaigns, people
from tests.support.decision_cases import NOW, Patience, Someone, campaign
from tests.support.enrolment_history import History, advanced, completed_as, marked, origin_at, settled_as

STATES = st.sampled_from([CampaignState.LIVE, CampaignState.LIVE, CampaignState.DRAINING])
ENDS = st.sampled_from([DeliveryState.SENT, DeliveryState.SENT, DeliveryState.FAILED, DeliveryState.UNKNOWN])
STEPS = st.lists(st.tuples(st.sampled_from([0, 1, HALF, 3 * HALF]), ENDS), min_size=4, max_size=12)
QUIET = st.booleans()
"""Whether a campaign leaves out questions to users: few random campaigns have none."""


def quiet(rules: Rules) -> Rules:
    return replace(rules, unmatched=False, exit_when=None, goal_event=False, goal_fields=None)


def evaluated(history: History, enrolment: Enrolment, as_of: int) -> tuple[Enrolment, ExitReason | None]:
    """Return the enrolment after the evaluation of a due run, and the reason why that ended it."""
    facts = history.user.facts_read(history.campaign, enrolment, as_of)
    decision = decide(history.campaign, Patience(history.inactivity), facts, enrolment, as_of)
    change = change_of(history.campaign, origin_at(as_of), enrolment, decision)
    reason = decision.outcome.reason if isinstance(decision.outcome, Exit) else None
    return enrolment if change is None else advanced(enrolment, change), reason


def unversioned(enrolment: Enrolment) -> Enrolment:
    """Return the enrolment with version 0: the version counts writes, and the short way writes once less."""
    return replace(enrolment, version=0)


def check_settling(history: History, enrolment: Enrolment, end: DeliveryState, as_of: int) -> None:
    """Settle one delivery: if the settling write ends the enrolment, the evaluation after it gives the same one.

    If the write does not end it, the evaluation does not either, unless the campaign asks something of its users.
    """
    assert enrolment.outgoing is not None
    names = [delivery.message for delivery in enrolment.settled]
    completed = completion(history.campaign, names, enrolment.outgoing.message, as_of)
    later, reason = evaluated(history, settled_as(enrolment, end, as_of), as_of)
    if completed is not None:
        event("completes")
        assert unversioned(completed_as(enrolment, end, as_of, completed)) == unversioned(later)
    elif not asks_users(history.campaign):
        event("goes on")
        assert reason is None
    elif reason is ExitReason.COMPLETED:
        event("depends on the user")


def check_skip(history: History, before: Enrolment | None, as_of: int) -> None:
    """Skip one message: that evaluation ends the enrolment exactly if the evaluation after it would end it."""
    facts = history.user.facts_read(history.campaign, before, as_of)
    decision = decide(history.campaign, Patience(history.inactivity), facts, before, as_of)
    match decision.outcome:
        case Send(message, skip, completes) if skip is not None:
            event(f"skips and completes: {completes}")
            twice = History(history.campaign, history.user, history.inactivity, [] if before is None else [before])
            twice.evaluate(as_of)
            once = twice.latest
            assert once is not None
            skipped = Settled(message, DeliveryState.SKIPPED, as_of, skip.value)
            assert once.settled[-1] == skipped
            undone = replace(
                once, state=once.state.ACTIVE, reason=None, ended_at=None, due_at=as_of if completes else once.due_at
            )
            later, reason = evaluated(history, undone, as_of)
            assert (reason is ExitReason.COMPLETED) == completes
            if completes:
                assert unversioned(once) == unversioned(later)


@settings(max_examples=300, deadline=None)
@given(campaigns(), people(), STATES, STEPS, QUIET, st.data())
def test_a_completion_at_settling_equals_the_next_evaluation(
    rules: Rules,
    user: Someone,
    state: CampaignState,
    steps: list[tuple[int, DeliveryState]],
    asks_nothing: bool,
    data: st.DataObject,
) -> None:
    facts_ = quiet(rules) if asks_nothing else rules
    history = History(
        campaign(**facts_.written, launching=facts_.one_off, revision=3),
        user,
        timedelta(milliseconds=facts_.inactivity),
    )
    as_of = NOW
    for step, end in steps:
        as_of += step
        if history.latest is not None:  # nobody enters a draining campaign
            history.campaign = campaign(**facts_.written, launching=facts_.one_off, revision=3, state=state)
        check_skip(history, history.latest, as_of)
        history.evaluate(as_of)
        latest = history.latest
        if latest is not None and latest.outgoing is not None:
            history.user = replace(data.draw(people()), name=user.name)
            check_settling(history, marked(latest), end, as_of)
            history.enrolments[-1] = settled_as(marked(latest), end, as_of)
