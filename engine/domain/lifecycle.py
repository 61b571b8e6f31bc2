"""All lifecycle states, each with a sentence, and the table of legal transitions.

A test generates `docs/lifecycle.md` from these tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeVar

from engine.errors import IllegalTransition


class CampaignState(StrEnum):
    """State of a campaign, from its first apply to its end."""

    DRAFT = "draft"
    SCHEDULED = "scheduled"
    LIVE = "live"
    PAUSED = "paused"
    DRAINING = "draining"
    FINISHED = "finished"
    CANCELLED = "cancelled"


class EnrolmentState(StrEnum):
    """State of one enrolment."""

    ACTIVE = "active"
    ENDED = "ended"


class ExitReason(StrEnum):
    """Why an enrolment ended; each ended enrolment has exactly one reason."""

    GOAL = "goal"
    UNMATCHED = "unmatched"
    INACTIVE = "inactive"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    DELETED = "deleted"
    FAILED = "failed"


class DeliveryState(StrEnum):
    """State of one message to one user in one enrolment."""

    QUEUED = "queued"
    ATTEMPTING = "attempting"
    SENT = "sent"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


class SkipReason(StrEnum):
    """Why a chosen message was not sent."""

    HOLDOUT = "holdout"
    TOO_LATE = "too_late"
    CANCELLED = "cancelled"
    EXITED = "exited"
    SUPPRESSED = "suppressed"
    NO_ADDRESS = "no_address"
    NO_SMTPUTF8 = "no_smtputf8"


class RunState(StrEnum):
    """State of one pass of one campaign."""

    PLANNING = "planning"
    RUNNING = "running"
    DECIDED = "decided"
    DROPPED = "dropped"


class SliceState(StrEnum):
    """State of one slice, the unit of dispatch and lease."""

    OPEN = "open"
    DONE = "done"
    SPLIT = "split"
    DROPPED = "dropped"
    DEAD = "dead"


SENTENCES: Final[Mapping[type[StrEnum], Mapping[StrEnum, str]]] = {
    CampaignState: {
        CampaignState.DRAFT: "Applied, never launched: no user is in it.",
        CampaignState.SCHEDULED: "Launched, and waiting for its start in campaign time.",
        CampaignState.LIVE: "Users enter, are evaluated and get messages.",
        CampaignState.PAUSED: "Nothing is decided and nothing is sent until it is resumed.",
        CampaignState.DRAINING: "No user enters any more; enrolled users continue to their end.",
        CampaignState.FINISHED: "Every enrolment has ended and every message is settled; the counts add up.",
        CampaignState.CANCELLED: "Ended by hand: every enrolment ends and nothing more is sent.",
    },
    EnrolmentState: {
        EnrolmentState.ACTIVE: "The user is in the campaign.",
        EnrolmentState.ENDED: "The user has left, for exactly one reason.",
    },
    DeliveryState: {
        DeliveryState.QUEUED: "Chosen; a deliver slice will send it, not before its time.",
        DeliveryState.ATTEMPTING: "Marked durably with a token; the provider is being called or has been.",
        DeliveryState.SENT: "The provider accepted it.",
        DeliveryState.FAILED: "The provider refused it for good, or it could not be made (a broken template).",
        DeliveryState.UNKNOWN: "It is not known whether the provider accepted it; the engine does not send it again.",
        DeliveryState.SKIPPED: "It was not sent, for a reason that is counted.",
    },
    RunState: {
        RunState.PLANNING: "Its slices are being written.",
        RunState.RUNNING: "All its slices are written and some are open.",
        RunState.DECIDED: "It is fully planned and no slice of it is open.",
        RunState.DROPPED: "A resume replaced it with a newer run.",
    },
    SliceState: {
        SliceState.OPEN: "To be claimed, or claimed under a lease.",
        SliceState.DONE: "Every user in its range was handled.",
        SliceState.SPLIT: "Split into halves that replace it.",
        SliceState.DROPPED: "Given up unclaimed with its run.",
        SliceState.DEAD: "It kept killing its worker; its one user's enrolment ended as failed(poison).",
    },
}
"""The meaning of each state, by state machine. Two machines may share a state name, and such states compare equal as
keys."""

SKIPPED_BECAUSE: Final[Mapping[SkipReason, str]] = {
    SkipReason.HOLDOUT: "The user is in the holdout.",
    SkipReason.TOO_LATE: "Its `not_after` had passed.",
    SkipReason.CANCELLED: "The campaign was cancelled, or the message was removed.",
    SkipReason.EXITED: "The user left the campaign before it was sent.",
    SkipReason.SUPPRESSED: "The user is unsubscribed or deleted, or mail to the address bounced.",
    SkipReason.NO_ADDRESS: "The user has no usable address: it is missing, empty or not an address.",
    SkipReason.NO_SMTPUTF8: "The address needs SMTPUTF8, which the mail server or the recipient's does not offer.",
}
"""Each reason for not sending a chosen message, with a sentence. None of them is a failure."""

_C, _D = CampaignState, DeliveryState
TRANSITIONS: Final[Mapping[type[StrEnum], Mapping[StrEnum, frozenset[StrEnum]]]] = {
    CampaignState: {
        _C.DRAFT: frozenset({_C.SCHEDULED, _C.LIVE, _C.CANCELLED}),
        _C.SCHEDULED: frozenset({_C.LIVE, _C.DRAFT, _C.CANCELLED}),
        _C.LIVE: frozenset({_C.PAUSED, _C.DRAINING, _C.FINISHED, _C.CANCELLED}),
        _C.PAUSED: frozenset({_C.LIVE, _C.DRAINING, _C.CANCELLED}),
        _C.DRAINING: frozenset({_C.PAUSED, _C.FINISHED, _C.CANCELLED}),
        _C.FINISHED: frozenset({_C.DRAINING}),
        _C.CANCELLED: frozenset(),
    },
    EnrolmentState: {
        EnrolmentState.ACTIVE: frozenset({EnrolmentState.ENDED}),
        EnrolmentState.ENDED: frozenset(),
    },
    DeliveryState: {
        _D.QUEUED: frozenset({_D.ATTEMPTING, _D.SKIPPED, _D.FAILED}),
        _D.ATTEMPTING: frozenset({_D.SENT, _D.FAILED, _D.UNKNOWN, _D.SKIPPED, _D.QUEUED}),
        _D.UNKNOWN: frozenset({_D.SENT, _D.FAILED}),
        _D.FAILED: frozenset({_D.QUEUED}),
        _D.SENT: frozenset(),
        _D.SKIPPED: frozenset(),
    },
    RunState: {
        RunState.PLANNING: frozenset({RunState.RUNNING, RunState.DROPPED}),
        RunState.RUNNING: frozenset({RunState.DECIDED, RunState.DROPPED}),
        RunState.DECIDED: frozenset(),
        RunState.DROPPED: frozenset(),
    },
    SliceState: {
        SliceState.OPEN: frozenset({SliceState.DONE, SliceState.SPLIT, SliceState.DROPPED, SliceState.DEAD}),
        SliceState.DONE: frozenset(),
        SliceState.SPLIT: frozenset(),
        SliceState.DROPPED: frozenset(),
        SliceState.DEAD: frozenset(),
    },
}
"""The states that each state may move to, by state machine; an end state has none."""

SETTLED: Final = frozenset({_D.SENT, _D.FAILED, _D.UNKNOWN, _D.SKIPPED})
"""Delivery states in which a message is settled: the engine never chooses it again in that enrolment."""

GOING: Final = frozenset({_C.LIVE, _C.DRAINING})
"""Campaign states in which users are evaluated and get messages."""

LOOKED_AT: Final = frozenset({_C.LIVE, _C.DRAINING, _C.CANCELLED})
"""Campaign states in which evaluating an enrolment can change something."""

State = TypeVar("State", bound=StrEnum)


def check_transition(before: State, after: State) -> State:
    """Return `after` if the table allows it from `before`; raise `IllegalTransition` otherwise."""
    transitions = TRANSITIONS[type(before)][before]
    if after not in transitions:
        allowed = ", ".join(sorted(transitions)) or "nothing"
        raise IllegalTransition(f"{before} does not lead to {after}; it leads to {allowed}")
    return after
