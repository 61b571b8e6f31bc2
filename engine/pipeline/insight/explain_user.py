"""Explain one user in one campaign: the decision of an evaluation now, its reason, and the time of the next one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from engine.campaign.compiled import CompiledCampaign, Facts
from engine.clock import Clock, Instant, format_instant, millis
from engine.decisions.decide import Decision, Exit, Ignore, Send, Wait, decide
from engine.domain.campaign import CampaignRecord
from engine.domain.document import UserDocument
from engine.domain.enrolment import Enrolment
from engine.domain.keys import user_key
from engine.domain.lifecycle import CampaignState, DeliveryState, ExitReason, SkipReason
from engine.errors import NotFound
from engine.failure_text import reason_of
from engine.pipeline.campaigns.compiled_cache import CampaignCache, Unfit
from engine.pipeline.delivery.compose import recipient_of
from engine.pipeline.ports.deliveries import SuppressionStore
from engine.pipeline.ports.enrolments import EnrolmentStore
from engine.pipeline.ports.users import EventReads, UserReads
from engine.predicate.compiled import LeafResult

_EXITS = {
    ExitReason.GOAL: "the goal was reached",
    ExitReason.UNMATCHED: "the exit rule held, or the user no longer matched the audience",
    ExitReason.INACTIVE: "nothing was settled for longer than the profile's inactivity window",
    ExitReason.COMPLETED: "every message is settled",
    ExitReason.CANCELLED: "the campaign was cancelled",
    ExitReason.DELETED: "the user was deleted",
    ExitReason.FAILED: "deciding or sending for this user kept failing",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a user did or did not get a message.

    `now` says in a sentence what an evaluation at `as_of` decides. `next_evaluation` is when time brings the next
    evaluation (None: only a change of the user or the next pass does). `audience` holds each leaf of the audience with
    its data, `enrolments` every enrolment with its deliveries. `address` says why mail does not reach the user at
    present; it is empty if mail does.
    """

    record: CampaignRecord
    user: str
    as_of: Instant
    known: bool
    matches: bool
    now: str
    next_evaluation: Instant | None
    audience: Sequence[LeafResult]
    enrolments: Sequence[Enrolment]
    address: str = ""


UNKNOWN: Final = "check the user_id, and that it was imported into the campaign's workspace"

STUCK: Final = "the campaign is stuck, and what happens next is unknown until the cause is fixed"


class UserExplainer:
    """Explains a user for the command `explain CAMPAIGN USER`."""

    def __init__(
        self,
        campaign_cache: CampaignCache,
        users: UserReads,
        events: EventReads,
        enrolments: EnrolmentStore,
        suppressions: SuppressionStore,
        clock: Clock,
    ) -> None:
        self._suppressions = suppressions
        self._campaign_cache = campaign_cache
        self._users = users
        self._events = events
        self._enrolments = enrolments
        self._clock = clock

    def run(self, record: CampaignRecord, user_id: str) -> Explanation:
        """Explain the user with this id, even a deleted one. Raises `NotFound` if there never was such a user."""
        as_of = self._clock.campaign_now()
        key = user_key(record.workspace, user_id)
        documents = self._users.read_keys([key])
        if not documents:
            raise NotFound(f"there is no user {user_id} in {record.workspace}", remedy=UNKNOWN)
        document = documents[0]
        try:
            entry = self._campaign_cache.of(record)
        except Unfit as error:
            return self._unfit(record, user_id, document, as_of, reason_of(error))
        row = entry.catalogue.row(document)
        queries = entry.compiled.queries
        events = self._events.fetch([key], queries, as_of)[key] if queries else ()
        facts = Facts(row, events)
        enrolments = self._enrolments.all_of(record.uid, key)
        campaign = entry.compiled.at_state(record, launching=record.state is CampaignState.LIVE)
        latest = enrolments[-1] if enrolments else None
        decision = decide(campaign, self._campaign_cache.profile(record), facts, latest, as_of)
        leaves: Sequence[LeafResult] = ()
        if not row.deleted:
            own = tuple(events[i] for i in campaign.audience.positions)
            leaves = campaign.audience.compiled.explain(row, own, as_of)
        return Explanation(
            record=record,
            user=user_id,
            as_of=as_of,
            known=not row.deleted,
            matches=campaign.audience.matches(facts, as_of),
            now=_sentence(campaign, facts, latest, decision, as_of, record),
            next_evaluation=latest.due_at if latest is not None and not _stands(record) else None,
            audience=leaves,
            enrolments=enrolments,
            address=unreachable(self._suppressions, record.workspace, document),
        )

    def _unfit(
        self, record: CampaignRecord, user_id: str, document: UserDocument, as_of: Instant, reason: str
    ) -> Explanation:
        """Explain without the campaign's rules, because its file does not fit its workspace."""
        known, now = not document.get("deleted"), f"{STUCK}: {reason}"
        enrolments = self._enrolments.all_of(record.uid, user_key(record.workspace, user_id))
        return Explanation(record, user_id, as_of, known, False, now, None, (), enrolments)


def unreachable(suppressions: SuppressionStore, workspace: str, document: UserDocument) -> str:
    """Return why the deliver step would skip a user's mail; empty if it would not, or if the user is deleted."""
    if document.get("deleted") or document.get("unsubscribed") is True:
        return "" if document.get("deleted") else f"unsubscribed: mails are skipped ({SkipReason.SUPPRESSED})"
    recipient = recipient_of(document)
    if recipient is None:
        what = "is not valid" if document.get("email") else "is missing"
        return f"the e-mail address {what}: mails are skipped ({SkipReason.NO_ADDRESS})"
    bounced = suppressions.get(workspace, recipient)
    if bounced is None:
        return ""
    return (
        f"mail to the address bounced ({bounced.reason}) at {format_instant(bounced.since)}: "
        f"mails are skipped ({SkipReason.SUPPRESSED}) until `tidegate user unsuppress`"
    )


def _stands(record: CampaignRecord) -> bool:
    """Return whether the campaign evaluates nobody at present, even if enrolments are due."""
    return record.state is CampaignState.PAUSED or record.stuck is not None


def _sentence(
    campaign: CompiledCampaign,
    facts: Facts,
    enrolment: Enrolment | None,
    decision: Decision,
    as_of: Instant,
    record: CampaignRecord,
) -> str:
    if campaign.state is CampaignState.PAUSED:
        why = f" ({record.paused_reason})" if record.paused_reason else ""
        return f"the campaign is paused{why}: nothing is decided until it is resumed"
    if record.stuck is not None:
        return f"{STUCK}: {record.stuck}"
    if campaign.state in (CampaignState.DRAFT, CampaignState.SCHEDULED):
        return f"the campaign is {campaign.state}: no user is evaluated before it is live"
    match decision.outcome:
        case Ignore():
            return _outside(campaign, facts, enrolment, as_of)
        case Exit(reason):
            return f"the next evaluation ends the enrolment ({reason}): {_EXITS[reason]}"
        case Send(message, skip):
            entering = "enters and " if decision.enters else ""
            return f"the next evaluation {entering}chooses {message}" + (f", skipped ({skip})" if skip else "")
        case Wait():
            return _waiting(enrolment, decision)


def _outside(campaign: CompiledCampaign, facts: Facts, enrolment: Enrolment | None, as_of: Instant) -> str:
    if facts.row is None or facts.row.deleted:
        return "the user was deleted"
    converting = "" if enrolment is None else _converting(campaign, enrolment, as_of)
    if (
        enrolment is not None
        and campaign.intake_open
        and campaign.again_after is not None
        and enrolment.ended_at is not None
    ):
        opens = enrolment.ended_at + millis(campaign.again_after)
        if as_of < opens:
            return f"the last enrolment has ended; a new one may begin at {format_instant(opens)}{converting}"
    if enrolment is not None and campaign.again_after is None:
        reason = f" ({enrolment.reason}): {_EXITS[enrolment.reason]}" if enrolment.reason else ""
        return f"the enrolment has ended{reason}; a user enters this campaign once{converting}"
    if not campaign.intake_open:
        return f"no user enters: the campaign is {campaign.state}{converting}"
    if not campaign.audience.matches(facts, as_of):
        return "the user does not match the audience"
    return "the user has already reached the goal, and does not enter"


def _converting(campaign: CompiledCampaign, enrolment: Enrolment, as_of: Instant) -> str:
    """Return until when the campaign counts a conversion of an ended enrolment, as the end of a sentence."""
    if campaign.goal is None or enrolment.converted_at is not None:
        return ""
    closes = campaign.goal.closes(enrolment.entered_at)
    if closes is None:
        return "; a conversion is counted forever"
    return f"; a conversion is counted until {format_instant(closes)}" if as_of <= closes else ""


def _waiting(enrolment: Enrolment | None, decision: Decision) -> str:
    if enrolment is not None and enrolment.outgoing is not None:
        word = "being sent" if enrolment.outgoing.state is DeliveryState.ATTEMPTING else "queued"
        return f"{enrolment.outgoing.message} is {word} (attempt {enrolment.outgoing.attempts + 1})"
    if decision.holds_until is None:
        return "waits: no message's own rule holds, and time alone will not change that"
    return f"waits until {format_instant(decision.holds_until)}, unless the user changes earlier"
