"""Refusals of commands that a campaign's state does not allow, with the possible alternatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.domain.campaign import CampaignRecord
from engine.domain.lifecycle import TRANSITIONS, CampaignState
from engine.errors import IllegalTransition

_C = CampaignState
_DONE: Final[Mapping[CampaignState, str]] = {
    _C.DRAFT: "a draft again",
    _C.SCHEDULED: "launched",
    _C.LIVE: "resumed",
    _C.PAUSED: "paused",
    _C.DRAINING: "stopped",
    _C.FINISHED: "finished",
    _C.CANCELLED: "cancelled",
}
"""The command that moves a campaign to this state, as messages name it."""

_INSTEAD: Final[Mapping[CampaignState, str]] = {
    _C.DRAFT: "tidegate campaign launch starts it",
    _C.SCHEDULED: "it goes live by itself at its start; tidegate campaign cancel ends it",
    _C.LIVE: "it can be paused, stopped or cancelled; an edit of its file is applied while it runs",
    _C.PAUSED: "it can be resumed, stopped or cancelled",
    _C.DRAINING: "no user enters any more; it can be paused or cancelled, and finishes by itself",
    _C.FINISHED: "to run it again, give its file another campaign: name",
    _C.CANCELLED: "to run it again, give its file another campaign: name",
}
"""The remedy that messages suggest for a campaign in this state."""


def refusal(record: CampaignRecord, done: str) -> IllegalTransition:
    """Return the error for a campaign that cannot be `done` (`launched`, `paused`, ...) in its state, with a remedy."""
    name = f"{record.workspace}/{record.name}"
    return IllegalTransition(f"{name} is {record.state}: it cannot be {done}", remedy=_INSTEAD[record.state])


def check_move(record: CampaignRecord, state: CampaignState) -> None:
    """Raise `IllegalTransition` if the campaign's state does not lead to `state`."""
    if state not in TRANSITIONS[CampaignState][record.state]:
        raise refusal(record, _DONE[state])
