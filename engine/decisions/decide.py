"""The decision: evaluate one user in one campaign, with one outcome. Pure; `docs/semantics.md`, section 2 in code.

An active enrolment is checked in a fixed order, and the first answer counts. A delivery in progress holds everything.
Then a deleted user, a cancelled campaign, the goal, the exit rule, inactivity and completion end the enrolment.
Otherwise the first message that is not settled and whose own rule matches is sent when its wait is over. No later
message overtakes it. In a paused or finished campaign, only conversions are counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol, TypeAlias

from engine.campaign.compiled import CompiledCampaign, CompiledMessage, Facts
from engine.clock import Instant, millis
from engine.domain.enrolment import Enrolment
from engine.domain.lifecycle import CampaignState, DeliveryState, EnrolmentState, ExitReason, SkipReason


class Window(Protocol):
    """The part of a profile that the decision needs."""

    @property
    def inactivity(self) -> timedelta:
        """How long an enrolment may go without a settled message."""


@dataclass(frozen=True, slots=True)
class Exit:
    """The enrolment ends."""

    reason: ExitReason


@dataclass(frozen=True, slots=True)
class Send:
    """The message is chosen. With `skip` it settles as skipped in the same write, and no sender sees it.

    `completes` marks a skipped message that leaves no message open: the same write ends the enrolment as completed.
    """

    message: str
    skip: SkipReason | None = None
    completes: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `holds_until`, unless the user changes."""


@dataclass(frozen=True, slots=True)
class Ignore:
    """The user is not in the campaign and does not enter."""


Outcome: TypeAlias = Exit | Send | Wait | Ignore


@dataclass(frozen=True, slots=True)
class Decision:
    """One outcome, and the moment until which it holds if the user does not change (None: for ever).

    `enters` is the number of the enrolment that begins with this evaluation. `converted_at` is the conversion to write
    on the latest enrolment as it was read (if an enrolment begins: on the one before it).
    """

    outcome: Outcome
    holds_until: Instant | None = None
    enters: int | None = None
    holdout: bool = False
    converted_at: Instant | None = None


IGNORED = Decision(Ignore())


def decide(
    campaign: CompiledCampaign, profile: Window, facts: Facts, enrolment: Enrolment | None, as_of: Instant
) -> Decision:
    """Decide what happens to this user at `as_of`; `enrolment` is the latest enrolment, active or ended."""
    if campaign.only_converts:
        return IGNORED if enrolment is None else _convert(campaign, facts, enrolment, as_of)
    if enrolment is not None and enrolment.active:
        return _evaluate(campaign, profile, facts, enrolment, as_of, enters=None)
    return _enter(campaign, profile, facts, enrolment, as_of)


def alike(campaign: CompiledCampaign, as_of: Instant, *, holdout: bool) -> Decision | None:
    """Return the decision for every user (in the holdout, or not) who matches and was never in the campaign.

    Return None if it depends on the user: a goal, an exit rule, a rule of a message, or an audience that time changes.
    """
    moves = campaign.unmatched_exits and campaign.audience.compiled.moves
    if not campaign.intake_open or moves or campaign.exit_rule is not None or campaign.goal is not None:
        return None
    if any(message.when is not None for message in campaign.messages):
        return None
    first = campaign.messages[0]
    due = as_of + millis(first.wait)
    if as_of < due:
        return Decision(Wait(), due, 1, holdout)
    skip = SkipReason.HOLDOUT if holdout else None
    if first.not_after is not None and as_of > first.not_after:
        skip = SkipReason.TOO_LATE
    if skip is not None and len(campaign.messages) == 1:
        return Decision(Send(first.name, skip, completes=True), _opens_again(campaign, as_of), 1, holdout)
    return Decision(Send(first.name, skip), None, 1, holdout)


def _convert(campaign: CompiledCampaign, facts: Facts, last: Enrolment, as_of: Instant) -> Decision:
    """Count a conversion and change nothing else; the due time is kept."""
    converted = _conversion(campaign, facts, last, as_of)
    if last.active:
        return Decision(Wait(), last.due_at, None, last.holdout, converted)
    kept = last.due_at if campaign.state is CampaignState.PAUSED else None
    due = _earliest([kept, _goal_flip(campaign, facts, last, as_of, converted)])
    return Decision(Ignore(), due, converted_at=converted)


def _enter(
    campaign: CompiledCampaign, profile: Window, facts: Facts, last: Enrolment | None, as_of: Instant
) -> Decision:
    converted = _conversion(campaign, facts, last, as_of)
    entry = 1 if last is None else last.entry + 1
    flip = None if last is None else _goal_flip(campaign, facts, last, as_of, converted)
    outside = Decision(Ignore(), holds_until=flip, converted_at=converted)
    if not campaign.intake_open or facts.row is None or facts.row.deleted:
        return outside
    if last is not None:
        if campaign.again_after is None or last.ended_at is None:
            return outside
        opens = last.ended_at + millis(campaign.again_after)
        if as_of < opens:
            return replace(outside, holds_until=_earliest([opens, flip]))
    if not campaign.audience.matches(facts, as_of):
        return outside
    goal = campaign.goal
    if goal is not None and goal.fields is not None and goal.fields.matches(facts, as_of):
        return outside
    enrolment = Enrolment(
        id="",
        workspace=campaign.workspace,
        campaign=campaign.uid,
        user=facts.row.key,
        entry=entry,
        state=EnrolmentState.ACTIVE,
        entered_at=as_of,
        revision=campaign.revision,
        version=0,
        holdout=campaign.in_holdout(facts.row.key),
    )
    return replace(_evaluate(campaign, profile, facts, enrolment, as_of, enters=entry), converted_at=converted)


def _evaluate(
    campaign: CompiledCampaign,
    profile: Window,
    facts: Facts,
    enrolment: Enrolment,
    as_of: Instant,
    *,
    enters: int | None,
) -> Decision:
    converted = _conversion(campaign, facts, enrolment, as_of)

    def ended(reason: ExitReason) -> Decision:
        due = _due_when_ended(campaign, facts, enrolment, as_of, converted)
        return Decision(Exit(reason), due, enters, enrolment.holdout, converted)

    if enrolment.outgoing is not None and enrolment.outgoing.state is DeliveryState.ATTEMPTING:
        return Decision(Wait(), None, enters, enrolment.holdout, converted)
    if facts.row is None or facts.row.deleted:
        return ended(ExitReason.DELETED)
    if campaign.state is CampaignState.CANCELLED:
        return ended(ExitReason.CANCELLED)
    if campaign.goal is not None and campaign.goal.exits and (converted or enrolment.converted_at) is not None:
        return ended(ExitReason.GOAL)
    if campaign.exit_rule is not None and campaign.exit_rule.matches(facts, as_of):
        return ended(ExitReason.UNMATCHED)
    if campaign.unmatched_exits and not campaign.audience.matches(facts, as_of):
        return ended(ExitReason.UNMATCHED)
    if enrolment.outgoing is not None:
        flips = _earliest(_exit_flips(campaign, facts, enrolment, as_of, converted))
        return Decision(Wait(), flips, enters, enrolment.holdout, converted)
    if as_of >= max(enrolment.idle_since, campaign.resumed_at) + millis(profile.inactivity):
        return ended(ExitReason.INACTIVE)
    open_messages = [message for message in campaign.messages if not enrolment.has_settled(message.names)]
    if not open_messages:
        return ended(ExitReason.COMPLETED)
    return _choose(campaign, facts, enrolment, open_messages, as_of, enters=enters, converted=converted)


def _choose(
    campaign: CompiledCampaign,
    facts: Facts,
    enrolment: Enrolment,
    open_messages: list[CompiledMessage],
    as_of: Instant,
    *,
    enters: int | None,
    converted: Instant | None,
) -> Decision:
    due: Instant | None = None
    for message in open_messages:
        if message.when is not None and not message.when.matches(facts, as_of):
            continue
        due = (enrolment.entered_at if enrolment.settled_at is None else enrolment.settled_at) + millis(message.wait)
        if as_of < due:
            break
        skip = _skip(message, enrolment, as_of)
        if skip is not None and len(open_messages) == 1:
            due = _due_when_ended(campaign, facts, enrolment, as_of, converted)
            return Decision(Send(message.name, skip, completes=True), due, enters, enrolment.holdout, converted)
        flips = _earliest(_exit_flips(campaign, facts, enrolment, as_of, converted))
        return Decision(Send(message.name, skip), flips, enters, enrolment.holdout, converted)
    exits = _exit_flips(campaign, facts, enrolment, as_of, converted)
    flips = _earliest([due, *exits, *_message_flips(open_messages, facts, as_of)])
    return Decision(Wait(), flips, enters, enrolment.holdout, converted)


def _skip(message: CompiledMessage, enrolment: Enrolment, as_of: Instant) -> SkipReason | None:
    if message.not_after is not None and as_of > message.not_after:
        return SkipReason.TOO_LATE
    return SkipReason.HOLDOUT if enrolment.holdout else None


def _conversion(
    campaign: CompiledCampaign, facts: Facts, enrolment: Enrolment | None, as_of: Instant
) -> Instant | None:
    """Return the conversion to write once on the latest enrolment; events before the entry never count."""
    if campaign.goal is None or enrolment is None or enrolment.converted_at is not None:
        return None
    return campaign.goal.reached_at(facts, enrolment.entered_at, as_of, enrolment.due_at)


def _opens_again(campaign: CompiledCampaign, ended_at: Instant) -> Instant | None:
    """Return when a user whose enrolment ended at `ended_at` may enter again."""
    return None if campaign.again_after is None else ended_at + millis(campaign.again_after)


def _due_when_ended(
    campaign: CompiledCampaign, facts: Facts, enrolment: Enrolment, as_of: Instant, converted: Instant | None
) -> Instant | None:
    """Return when an enrolment that ends at `as_of` is due for evaluation again."""
    return _earliest([_opens_again(campaign, as_of), _goal_flip(campaign, facts, enrolment, as_of, converted)])


def _goal_flip(
    campaign: CompiledCampaign, facts: Facts, enrolment: Enrolment, as_of: Instant, converted: Instant | None
) -> Instant | None:
    """Return when time alone could cause the conversion of an enrolment that has none."""
    if campaign.goal is None or (converted or enrolment.converted_at) is not None:
        return None
    return campaign.goal.next_flip(facts, enrolment.entered_at, as_of)


def _exit_flips(
    campaign: CompiledCampaign, facts: Facts, enrolment: Enrolment, as_of: Instant, converted: Instant | None
) -> Iterable[Instant | None]:
    if campaign.unmatched_exits:
        yield campaign.audience.next_flip(facts, as_of)
    if campaign.exit_rule is not None:
        yield campaign.exit_rule.next_flip(facts, as_of)
    yield _goal_flip(campaign, facts, enrolment, as_of, converted)


def _message_flips(messages: list[CompiledMessage], facts: Facts, as_of: Instant) -> Iterable[Instant | None]:
    for message in messages:
        if message.when is not None:
            yield message.when.next_flip(facts, as_of)


def _earliest(moments: Iterable[Instant | None]) -> Instant | None:
    return min((moment for moment in moments if moment is not None), default=None)
