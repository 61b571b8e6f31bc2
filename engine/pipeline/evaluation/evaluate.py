"""Evaluate a batch of users in one campaign and write the decisions; `engine.decisions.decide` makes each decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from engine.campaign.compiled import CompiledCampaign, Facts
from engine.catalogue.fields import Row
from engine.clock import Instant
from engine.decisions.decide import Decision, Exit, Send, alike, decide
from engine.domain.enrolment import Enrolment, EnrolmentChange, Outgoing, Settled
from engine.domain.keys import enrolment_id, suffix_of_user, user_of_enrolment
from engine.domain.lifecycle import DeliveryState, EnrolmentState, ExitReason, SkipReason
from engine.pipeline.campaigns.event_labels import EndedDelivery, tell_ends
from engine.pipeline.ports.campaigns import CampaignStore
from engine.pipeline.ports.enrolments import EnrolmentStore
from engine.pipeline.ports.users import EventReads, UserReads
from engine.policy.models import Profile


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One user to evaluate: the suffix, the row (None: no such user), and the latest enrolment."""

    suffix: str
    row: Row | None
    enrolment: Enrolment | None


@dataclass(frozen=True, slots=True)
class Origin:
    """Origin of evaluations: the id of their slice (or of their batch of re-evaluation requests), and their `as_of`."""

    id: str
    as_of: Instant


class Evaluator:
    """Evaluate users, then record the decisions; slices and re-evaluation requests share it."""

    def __init__(
        self, campaigns: CampaignStore, events: EventReads, enrolments: EnrolmentStore, users: UserReads
    ) -> None:
        self._users = users
        self._campaigns = campaigns
        self._events = events
        self._enrolments = enrolments

    def evaluate(
        self,
        campaign: CompiledCampaign,
        profile: Profile,
        evaluations: Sequence[Evaluation],
        as_of: Instant,
        *,
        dense: bool = False,
    ) -> list[Decision]:
        """Return one decision per user in `evaluations`; read events for the users who need them.

        `dense` says that `evaluations` holds all users of a range. If at least half of them need events, the events
        are read as a range too.
        """
        with_events = [
            evaluation.row.key
            for evaluation in evaluations
            if evaluation.row is not None and campaign.needs_events(evaluation.row, evaluation.enrolment, as_of)
        ]
        adjacent = dense and 2 * len(with_events) >= len(evaluations)
        known = self._events.fetch(with_events, campaign.queries, as_of, adjacent=adjacent) if with_events else {}
        return [
            decide(
                campaign,
                profile,
                Facts(evaluation.row, None if evaluation.row is None else known.get(evaluation.row.key)),
                evaluation.enrolment,
                as_of,
            )
            for evaluation in evaluations
        ]

    def record(
        self,
        campaign: CompiledCampaign,
        origin: Origin,
        evaluations: Sequence[Evaluation],
        decisions: Sequence[Decision],
        *,
        recheck: bool = False,
    ) -> Counter[str]:
        """Write decisions; return the counts of what was done, by the names of the telemetry contract.

        With `recheck`, make enrolments due whose users changed since their rows were read: the re-evaluation that the
        change requested may have finished before this write. Re-evaluations of one user run one after another and need
        no recheck.
        """
        counts: Counter[str] = Counter()
        written: dict[str, Row] = {}
        opened: list[Enrolment] = []
        changes: list[EnrolmentChange] = []
        for evaluation, decision in zip(evaluations, decisions, strict=True):
            if decision.enters is not None and evaluation.row is not None:
                opened.append(new_enrolment(campaign, origin, evaluation.suffix, evaluation.row.key, decision))
                written[opened[-1].id] = evaluation.row
                if evaluation.enrolment is not None and decision.converted_at is not None:
                    changes.append(conversion_change(origin, evaluation.enrolment, decision.converted_at, None))
            elif evaluation.enrolment is not None:
                change = change_of(campaign, origin, evaluation.enrolment, decision)
                if change is not None:
                    changes.append(change)
                    if evaluation.row is not None:
                        written[change.id] = evaluation.row
        if opened:
            inserted = self._enrolments.enter(opened)
            self._again_after_command(campaign, origin, inserted)
            overtaken = [enrolment.id for enrolment in opened if enrolment.id not in inserted]
            if overtaken:
                self._enrolments.wake(overtaken, origin.as_of)
            _tell(
                campaign,
                [_skipped(origin, enrolment) for enrolment in opened if enrolment.settled and enrolment.id in inserted],
            )
            counts["entered"] += len(inserted)
            counts["exited"] += sum(not enrolment.active and enrolment.id in inserted for enrolment in opened)
            counts["conflicts"] += len(overtaken)
        if changes:
            matched = self._enrolments.advance(changes)
            if matched < len(changes):
                # The write that came first may rest on older data of the user or the campaign, so evaluate again.
                # With a goal, also evaluate ended enrolments again, for their conversion.
                self._enrolments.wake(self._enrolments.overtaken(changes), origin.as_of, left=campaign.goal is not None)
            self._tell_changes(campaign, origin, evaluations, changes, all_written=matched == len(changes))
            counts["exited"] += sum(change.exit is not None for change in changes)
            counts["conflicts"] += len(changes) - matched
        if recheck:
            self._again_after_change(campaign, origin, written)
        counts["chosen"] += sum(enrolment.outgoing is not None for enrolment in opened)
        counts["chosen"] += sum(change.outgoing is not None for change in changes)
        counts["holdout"] += sum(
            isinstance(decision.outcome, Send) and decision.outcome.skip is SkipReason.HOLDOUT for decision in decisions
        )
        return +counts

    def enter_alike(
        self, campaign: CompiledCampaign, origin: Origin, rows: Sequence[Row], *, recheck: bool = False
    ) -> Counter[str] | None:
        """Enter matching users (in the order of their keys) by one shared decision; skip users who were in before.

        Return the counts, or None if the decision depends on the user; then nothing is written. `recheck` is that of
        `record`.
        """
        known = {row.key: row for row in rows} if recheck else {}
        held: list[str] = []
        entering = [row.key for row in rows]
        if campaign.holdout:
            held = [key for key in entering if campaign.in_holdout(key)]
            out = set(held)
            entering = [key for key in entering if key not in out]
        counts: Counter[str] = Counter()
        for users, holdout in ((entering, False), (held, True)):
            decision = alike(campaign, origin.as_of, holdout=holdout)
            if decision is None:
                return None
            if not users:
                continue
            pairs = [(suffix_of_user(user), user) for user in users]
            model = new_enrolment(campaign, origin, *pairs[0], decision)
            inserted = self._enrolments.enter_alike(model, pairs)
            self._again_after_command(campaign, origin, inserted)
            if recheck:
                self._again_after_change(campaign, origin, {key: known[user_of_enrolment(key)] for key in inserted})
            counts["entered"] += len(inserted)
            if not model.active:
                counts["exited"] += len(inserted)
            if model.outgoing is not None:
                counts["chosen"] += len(inserted)
            if isinstance(decision.outcome, Send) and decision.outcome.skip is SkipReason.HOLDOUT:
                counts["holdout"] += len(inserted)
            if model.settled:
                user_of = dict(zip(map(_id_like(model), pairs), users, strict=True))
                settled = model.settled[-1]
                _tell(
                    campaign,
                    [EndedDelivery(key, user_of[key], settled, origin.as_of, origin.id) for key in sorted(inserted)],
                )
        return +counts

    def _again_after_command(self, campaign: CompiledCampaign, origin: Origin, entered: Collection[str]) -> None:
        """Make new enrolments (by id) due again if an edit, a resume or a cancel came after the campaign was read.

        The run of that command may have passed their range before they existed. Enrolments that ended in the same write
        become due too: an edit may let their users in again, or count another conversion.
        """
        record = self._campaigns.state_of(campaign.uid) if entered else None
        if record is not None and record.evaluation_wanted != campaign.evaluation_wanted:
            self._enrolments.wake(list(entered), origin.as_of, left=True)

    def _again_after_change(self, campaign: CompiledCampaign, origin: Origin, written: Mapping[str, Row]) -> None:
        """Make enrolments (by id) due if their users changed since they were read; with a goal, also ended ones."""
        if not written:
            return
        documents = self._users.read_keys([row.key for row in written.values()], {"rev": 1})
        revisions = {raw["_id"]: raw["rev"] for raw in documents}
        changed = [key for key, row in written.items() if revisions.get(row.key) != row.rev]
        self._enrolments.wake(changed, origin.as_of, left=campaign.goal is not None)

    def _tell_changes(
        self,
        campaign: CompiledCampaign,
        origin: Origin,
        evaluations: Sequence[Evaluation],
        changes: Sequence[EnrolmentChange],
        *,
        all_written: bool,
    ) -> None:
        """Log the skipped deliveries among written changes.

        If another write came first for some of them, read the enrolments again to find the changes that were written.
        """
        ended = {change.id: change.settled for change in changes if change.settled is not None}
        if not ended:
            return
        enrolments = {
            evaluation.enrolment.id: evaluation.enrolment
            for evaluation in evaluations
            if evaluation.enrolment is not None
        }
        if not all_written:
            now = self._enrolments.latest_of(campaign.uid, [enrolments[key].user for key in ended])
            written = {enrolment.id: enrolment.settled for enrolment in now.values()}
            ended = {key: settled for key, settled in ended.items() if settled in written.get(key, ())}
        _tell(campaign, [_skipped_change(origin, enrolments[key], settled) for key, settled in ended.items()])


def _tell(campaign: CompiledCampaign, skipped: Sequence[EndedDelivery]) -> None:
    tell_ends(campaign.workspace, campaign.name, campaign.uid, skipped)


def _skipped(origin: Origin, enrolment: Enrolment) -> EndedDelivery:
    """Return the delivery that the first write of a new enrolment settled."""
    return EndedDelivery(enrolment.id, enrolment.user, enrolment.settled[-1], origin.as_of, origin.id)


def _skipped_change(origin: Origin, enrolment: Enrolment, settled: Settled) -> EndedDelivery:
    """Return a delivery that an evaluation settled: the open one, or one that it chose and skipped at once."""
    if enrolment.outgoing is None:
        return EndedDelivery(enrolment.id, enrolment.user, settled, origin.as_of, origin.id)
    return EndedDelivery(enrolment.id, enrolment.user, settled, enrolment.outgoing.chosen_at, enrolment.outgoing.slice)


def _id_like(model: Enrolment) -> Callable[[tuple[str, str]], str]:
    """Return a function from (suffix, user key) to the id of an enrolment like `model`."""
    return lambda pair: enrolment_id(model.workspace, model.campaign, pair[0], model.entry)


def new_enrolment(campaign: CompiledCampaign, origin: Origin, suffix: str, user: str, decision: Decision) -> Enrolment:
    """Return the new enrolment that a decision opens, with the delivery that the decision chose."""
    as_of = origin.as_of
    entry = decision.enters or 1
    outgoing, settled, due_at = _choice(origin, decision)
    ended = _exit(decision)
    return Enrolment(
        id=enrolment_id(campaign.workspace, campaign.uid, suffix, entry),
        workspace=campaign.workspace,
        campaign=campaign.uid,
        user=user,
        entry=entry,
        state=EnrolmentState.ACTIVE if ended is None else EnrolmentState.ENDED,
        entered_at=as_of,
        revision=campaign.revision,
        version=1,
        settled_at=None if settled is None else as_of,
        ended_at=None if ended is None else as_of,
        reason=ended,
        due_at=due_at,
        holdout=decision.holdout,
        outgoing=outgoing,
        settled=() if settled is None else (settled,),
    )


def change_of(
    campaign: CompiledCampaign, origin: Origin, enrolment: Enrolment, decision: Decision
) -> EnrolmentChange | None:
    """Return the change that a decision makes to an enrolment; None if it changes nothing."""
    if campaign.only_converts:
        if decision.converted_at is None and decision.holds_until == enrolment.due_at:
            return None
        return conversion_change(origin, enrolment, decision.converted_at, decision.holds_until)
    outgoing, settled, due_at = _choice(origin, decision)
    reason = _exit(decision)
    if reason is not None and enrolment.outgoing is not None:
        why = SkipReason.CANCELLED if reason is ExitReason.CANCELLED else SkipReason.EXITED
        settled = Settled(
            enrolment.outgoing.message, DeliveryState.SKIPPED, origin.as_of, why.value, enrolment.outgoing.attempts
        )
    nothing = reason is None and outgoing is None and settled is None and decision.converted_at is None
    if nothing and due_at == enrolment.due_at and (not enrolment.active or enrolment.revision == campaign.revision):
        return None
    return EnrolmentChange(
        id=enrolment.id,
        version=enrolment.version,
        revision=campaign.revision,
        as_of=origin.as_of,
        due_at=due_at,
        exit=reason,
        outgoing=outgoing,
        settled=settled,
        converted_at=decision.converted_at,
    )


def conversion_change(
    origin: Origin, enrolment: Enrolment, at: Instant | None, due_at: Instant | None
) -> EnrolmentChange:
    """Return a change that writes only a conversion and `due_at`.

    The enrolment has ended, or its campaign is paused or has finished.
    """
    return EnrolmentChange(enrolment.id, enrolment.version, enrolment.revision, origin.as_of, due_at, converted_at=at)


def _exit(decision: Decision) -> ExitReason | None:
    """Return why the enrolment ends with this decision; None if it continues."""
    match decision.outcome:
        case Exit(reason):
            return reason
        case Send(completes=True):
            return ExitReason.COMPLETED
        case _:
            return None


def _choice(origin: Origin, decision: Decision) -> tuple[Outgoing | None, Settled | None, Instant | None]:
    """Return the delivery that a decision queues, the one that it settles at once, and the next due time."""
    outcome = decision.outcome
    if not isinstance(outcome, Send):
        return None, None, decision.holds_until
    if outcome.skip is not None:
        settled = Settled(outcome.message, DeliveryState.SKIPPED, origin.as_of, outcome.skip.value)
        return None, settled, decision.holds_until if outcome.completes else origin.as_of
    chosen = Outgoing(outcome.message, DeliveryState.QUEUED, origin.as_of, origin.as_of, slice=origin.id)
    return chosen, None, decision.holds_until
