"""One user's enrolments in one campaign without a store, written as the pipeline writes.

`advanced`, `marked`, `settled_as` and `put_back` do in memory what the store does; `test_enrolments` compares them with
MongoDB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from engine.campaign.compiled import CompiledCampaign
from engine.decisions.decide import Decision, decide
from engine.domain.enrolment import Enrolment, EnrolmentChange, Outgoing, Settled
from engine.domain.keys import suffix_of_user
from engine.domain.lifecycle import (
    LOOKED_AT,
    CampaignState,
    DeliveryState,
    EnrolmentState,
    ExitReason,
    check_transition,
)
from engine.domain.settling import Completion
from engine.pipeline.evaluation.evaluate import Origin, change_of, conversion_change, new_enrolment
from tests.support.decision_cases import Patience, Someone


def origin_at(as_of: int) -> Origin:
    """Return the origin of a slice that evaluates at `as_of`."""
    return Origin("s1", as_of)


def advanced(enrolment: Enrolment, change: EnrolmentChange) -> Enrolment:
    """Return `enrolment` after the decision's write; a change that read another version does nothing."""
    if enrolment.version != change.version:
        return enrolment
    ended = change.exit is not None
    if ended:
        check_transition(enrolment.state, EnrolmentState.ENDED)
    outgoing = change.outgoing or (None if ended else enrolment.outgoing)
    return replace(
        enrolment,
        version=enrolment.version + 1,
        revision=change.revision,
        due_at=change.due_at,
        converted_at=change.converted_at if change.converted_at is not None else enrolment.converted_at,
        state=EnrolmentState.ENDED if ended else enrolment.state,
        reason=change.exit or enrolment.reason,
        detail=change.detail or enrolment.detail,
        ended_at=change.as_of if ended else enrolment.ended_at,
        outgoing=outgoing,
        settled=enrolment.settled if change.settled is None else (*enrolment.settled, change.settled),
        settled_at=enrolment.settled_at if change.settled is None else change.settled.at,
    )


def _moved(enrolment: Enrolment, state: DeliveryState) -> Outgoing:
    assert enrolment.outgoing is not None
    check_transition(enrolment.outgoing.state, state)
    return enrolment.outgoing


def marked(enrolment: Enrolment) -> Enrolment:
    """Return `enrolment` with its queued delivery marked as attempting."""
    out = _moved(enrolment, DeliveryState.ATTEMPTING)
    return replace(
        enrolment, version=enrolment.version + 1, outgoing=replace(out, state=DeliveryState.ATTEMPTING, token="t")
    )


def settled_as(enrolment: Enrolment, state: DeliveryState, at: int, reason: str | None = None) -> Enrolment:
    """Return `enrolment` with its delivery settled; it is due again at once."""
    out = _moved(enrolment, state)
    end = Settled(out.message, state, at, reason, out.attempts + (out.token is not None))
    return replace(
        enrolment,
        version=enrolment.version + 1,
        outgoing=None,
        settled=(*enrolment.settled, end),
        settled_at=at,
        due_at=at,
    )


def completed_as(
    enrolment: Enrolment, state: DeliveryState, at: int, completion: Completion, reason: str | None = None
) -> Enrolment:
    """Return `enrolment` after one write that settles its last delivery and ends it."""
    check_transition(enrolment.state, EnrolmentState.ENDED)
    return replace(
        settled_as(enrolment, state, at, reason),
        state=EnrolmentState.ENDED,
        reason=ExitReason.COMPLETED,
        ended_at=at,
        revision=completion.revision,
        due_at=completion.due_at,
    )


def put_back(enrolment: Enrolment, at: int) -> Enrolment:
    """Return `enrolment` with its attempting delivery queued again."""
    out = _moved(enrolment, DeliveryState.QUEUED)
    again = replace(out, state=DeliveryState.QUEUED, attempts=out.attempts + 1, token=None)
    return replace(enrolment, version=enrolment.version + 1, outgoing=again, due_at=at)


@dataclass
class History:
    """All enrolments of one user in one campaign, oldest first."""

    campaign: CompiledCampaign
    user: Someone
    inactivity: timedelta = timedelta(days=45)
    enrolments: list[Enrolment] = field(default_factory=list)

    @property
    def latest(self) -> Enrolment | None:
        return self.enrolments[-1] if self.enrolments else None

    def evaluate(self, as_of: int) -> Decision | None:
        """Evaluate once and write the result; return None if the campaign's state permits no evaluation."""
        if self.campaign.state not in (*LOOKED_AT, CampaignState.PAUSED, CampaignState.FINISHED):
            return None
        facts = self.user.facts_read(self.campaign, self.latest, as_of)
        decision = decide(self.campaign, Patience(self.inactivity), facts, self.latest, as_of)
        origin = origin_at(as_of)
        if decision.enters is not None:
            if self.latest is not None:
                converted = decision.converted_at
                change = None if converted is None else conversion_change(origin, self.latest, converted, None)
                last = self.latest if change is None else advanced(self.latest, change)
                self.enrolments[-1] = replace(last, due_at=None)
            suffix = suffix_of_user(self.user.key)
            self.enrolments.append(new_enrolment(self.campaign, origin, suffix, self.user.key, decision))
        elif self.latest is not None:
            change = change_of(self.campaign, origin, self.latest, decision)
            if change is not None:
                self.enrolments[-1] = advanced(self.latest, change)
        return decision

    def settle(self, as_of: int, most: int = 20) -> int:
        """Evaluate at least once and then while the enrolment is due at `as_of`; return the number of evaluations."""
        evaluations = 0
        while evaluations < most and self.campaign.state in LOOKED_AT:
            if evaluations and (self.latest is None or self.latest.due_at is None or self.latest.due_at > as_of):
                return evaluations
            self.evaluate(as_of)
            evaluations += 1
        return evaluations

    def deliver(self, as_of: int, state: DeliveryState = DeliveryState.SENT) -> str | None:
        """Settle the queued delivery as `state`; return its message, or None if nothing is queued or may go out."""
        sending = self.campaign.state in (CampaignState.LIVE, CampaignState.DRAINING)
        if self.latest is None or self.latest.outgoing is None or not sending:
            return None
        name = self.latest.outgoing.message
        self.enrolments[-1] = settled_as(marked(self.latest), state, as_of)
        return name


def identities_hold(enrolments: Iterable[Enrolment]) -> bool:
    """Check both counting identities of `docs/semantics.md`, section 3, and that no enrolment repeats a message."""
    enrolments = list(enrolments)
    by_state = Counter(enrolment.state for enrolment in enrolments)
    by_reason = Counter(enrolment.reason for enrolment in enrolments if enrolment.reason is not None)
    if len(enrolments) != by_state[EnrolmentState.ACTIVE] + by_reason.total():
        return False
    for enrolment in enrolments:
        names = [delivery.message for delivery in enrolment.settled] + (
            [enrolment.outgoing.message] if enrolment.outgoing else []
        )
        skipped = [delivery for delivery in enrolment.settled if delivery.state is DeliveryState.SKIPPED]
        if len(names) != len(set(names)) or any(delivery.reason is None for delivery in skipped):
            return False
        if not enrolment.active and (
            enrolment.reason is None or enrolment.ended_at is None or enrolment.outgoing is not None
        ):
            return False
        if enrolment.active and (enrolment.reason is not None or enrolment.ended_at is not None):
            return False
    return sum(enrolment.active for enrolment in enrolments) <= 1
