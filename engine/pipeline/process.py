"""Process a slice: load, guard, evaluate, record, batch by batch. Deciding is `engine.decide`; this is the plumbing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from engine.batching import blended, choose
from engine.campaign.compiled import CompiledCampaign, Facts
from engine.clock import Clock, Instant
from engine.decide import Decision, Exit, Send, decide
from engine.domain.enrolment import Enrolment, Outgoing, Settled, StayChange
from engine.domain.keys import enrolment_id, stay_prefix, suffix_of_user
from engine.domain.lifecycle import LOOKED_AT, CampaignState, DeliveryState, ExitReason, SkipReason, StayState
from engine.domain.work import Slice, SliceKind
from engine.failpoints import passage
from engine.pipeline.book import CampaignBook, Entry, launching
from engine.pipeline.ports import CampaignStore, Doorbell, EventReads, Messenger, SliceStore, StayStore, UserReads
from engine.pipeline.telling import slice_labels
from engine.pipeline.watching import Watching
from engine.pipeline.working import Hold, LeaseLost, Progress, SliceWorker
from engine.policy.models import Profile
from engine.predicate.fields import Row
from engine.telemetry.events import emit

_AFTER: Final = "\0"
"""Appended to a key, gives the bound just behind it."""


@dataclass(frozen=True, slots=True)
class Look:
    """One user to be looked at: the row (None: no such user), the latest stay, the user's suffix and key."""

    suffix: str
    row: Row | None
    stay: Enrolment | None


@dataclass(frozen=True, slots=True)
class Batch:
    """The looks of one batch, and the cursor behind them (None: the range ends here)."""

    looks: Sequence[Look]
    cursor: str | None


class Processing:
    """The use case behind the actor `process_slice`."""

    def __init__(
        self,
        worker: SliceWorker,
        campaigns: CampaignStore,
        book: CampaignBook,
        users: UserReads,
        events: EventReads,
        stays: StayStore,
        slices: SliceStore,
        messenger: Callable[[], Messenger],
        bell: Doorbell,
        watching: Watching,
        clock: Clock,
    ) -> None:
        self._watching = watching
        self._worker = worker
        self._campaigns = campaigns
        self._book = book
        self._users = users
        self._events = events
        self._stays = stays
        self._slices = slices
        self._messenger = messenger
        self._bell = bell
        self._clock = clock
        self._pace: dict[str, float | None] = {}

    def run(self, slice_id: str) -> None:
        """Work on one deciding slice; safe to call twice, late or for a slice that is gone."""
        closed = self._worker.work(slice_id, self._guard, self._batch)
        if closed is None or closed.run is None:
            return
        labels = slice_labels(closed, self._book.name(closed.campaign))
        emit("slice.closed", **labels, as_of=closed.as_of, first=closed.first, until=closed.until, **closed.results)
        if not self._slices.has_open(closed.run):
            self._messenger().finish(closed.run)

    def _guard(self, piece: Slice) -> str | None:
        found = self._campaigns.state_of(piece.campaign)
        if found is None:
            return "campaign_gone"
        return None if found[0] in LOOKED_AT else found[0].value

    def _batch(self, hold: Hold) -> Progress:
        piece = hold.piece
        began = self._clock.monotonic()
        entry = self._book.open(piece.campaign)
        campaign = entry.compiled.at_state(entry.record, launching=launching(piece))
        profile = self._book.profile(entry.record)
        size = choose(profile.batch.candidates, self._pace.get(campaign.uid))
        batch = self._load(piece, entry, size)
        decisions = self._evaluate(campaign, profile, piece, batch.looks)
        passage("slice.decided", (f"/{look.suffix}/" for look in batch.looks))
        if self._clock.monotonic() >= hold.until:
            raise LeaseLost  # what was read may be old by now: another worker may have gone on from here
        counts = self._record(campaign, piece, batch.looks, decisions)
        took = timedelta(seconds=self._clock.monotonic() - began)
        self._watching.batch(entry.record, profile, len(batch.looks), took)
        self._pace[campaign.uid] = blended(self._pace.get(campaign.uid), len(batch.looks), took)
        if counts["chosen"]:
            self._bell.ring()
        emit(
            "batch.decided",
            **slice_labels(piece, campaign.name),
            first=batch.looks[0].suffix if batch.looks else _rest(piece),
            until=batch.looks[-1].suffix + _AFTER if batch.looks else piece.until,
            profile=profile.profile,
            policy=self._book.policies.version,
            as_of=piece.as_of,
            duration=took,
            **dict(counts),
        )
        return Progress(batch.cursor, counts)

    def _load(self, piece: Slice, entry: Entry, size: int) -> Batch:
        if piece.kind is SliceKind.AUDIENCE:
            return self._load_audience(piece, entry, size)
        return self._load_stays(piece, entry, size)

    def _load_audience(self, piece: Slice, entry: Entry, size: int) -> Batch:
        """The next users of the range with their latest stays: two adjacent range scans."""
        first = _rest(piece)
        documents = self._users.read_range(piece.workspace, first, piece.until, size, entry.projection)
        if not documents:
            return Batch((), None)
        suffixes = [suffix_of_user(document["_id"]) for document in documents]
        stays = self._stays.latest(piece.workspace, piece.campaign, suffixes[0], suffixes[-1])
        read = entry.catalogue.row
        looks = [Look(suffix, read(raw), stays.get(suffix)) for suffix, raw in zip(suffixes, documents, strict=True)]
        return Batch(looks, suffixes[-1] if len(documents) == size else None)

    def _load_stays(self, piece: Slice, entry: Entry, size: int) -> Batch:
        """The next stays of the range, each user's latest, with their users."""
        prefix = stay_prefix(piece.workspace, piece.campaign)
        after = prefix + (piece.first if piece.cursor is None else piece.cursor)
        if piece.kind is SliceKind.DUE:
            found = self._stays.due(prefix, after, prefix + piece.until, piece.as_of, size)
        else:
            found = self._stays.active(prefix, after, prefix + piece.until, size)
        if not found:
            return Batch((), None)
        latest = {stay.user: stay for stay in found}
        ended = [user for user, stay in latest.items() if not stay.active]
        newest = self._stays.latest_of(piece.campaign, ended) if ended else {}
        self._forget_superseded(found, newest)
        latest |= newest
        documents = {raw["_id"]: raw for raw in self._users.read_keys(latest, entry.projection)}
        read = entry.catalogue.row
        looks = [
            Look(stay.suffix, read(documents[user]) if user in documents else None, stay)
            for user, stay in latest.items()
        ]
        cursor = found[-1].id.removeprefix(prefix) if len(found) == size else None
        return Batch(looks, cursor)

    def _forget_superseded(self, found: Sequence[Enrolment], newest: Mapping[str, Enrolment]) -> None:
        """An ended stay that a newer one followed is not looked at again: a crash had left it due."""
        old = [stay for stay in found if stay.user in newest and newest[stay.user].id != stay.id]
        self._stays.advance([StayChange(stay.id, stay.version, stay.revision, stay.idle_since, None) for stay in old])

    def _evaluate(
        self, campaign: CompiledCampaign, profile: Profile, piece: Slice, looks: Sequence[Look]
    ) -> list[Decision]:
        as_of = piece.as_of
        asked = [
            look.row.key for look in looks if look.row is not None and campaign.needs_events(look.row, look.stay, as_of)
        ]
        nearly_all = piece.kind is SliceKind.AUDIENCE and 2 * len(asked) >= len(looks)
        known = self._events.fetch(asked, campaign.queries, as_of, adjacent=nearly_all) if asked else {}
        return [
            decide(
                campaign,
                profile,
                Facts(look.row, None if look.row is None else known.get(look.row.key)),
                look.stay,
                as_of,
            )
            for look in looks
        ]

    def _record(
        self, campaign: CompiledCampaign, piece: Slice, looks: Sequence[Look], decisions: Sequence[Decision]
    ) -> Counter[str]:
        counts: Counter[str] = Counter(users=len(looks))
        opened: list[Enrolment] = []
        changes: list[StayChange] = []
        for look, decision in zip(looks, decisions, strict=True):
            if decision.enters is not None and look.row is not None:
                opened.append(_opened(campaign, piece, look.suffix, look.row.key, decision))
                if look.stay is not None and decision.converted_at is not None:
                    changes.append(_converted(piece, look.stay, decision.converted_at))
            elif look.stay is not None:
                change = _changed(campaign, piece, look.stay, decision)
                if change is not None:
                    changes.append(change)
        if opened:
            inserted = self._stays.enter(opened)
            found = self._campaigns.state_of(piece.campaign) if inserted else None
            if found is not None and found[0] is CampaignState.CANCELLED:  # its pass over the stays may be over already
                for stay in opened:
                    self._stays.make_due(stay.user, piece.as_of)
            counts["entered"] += len(inserted)
            counts["conflicts"] += len(opened) - len(inserted)
        if changes:
            matched = self._stays.advance(changes)
            counts["exited"] += sum(change.exit is not None for change in changes)
            counts["conflicts"] += len(changes) - matched
        counts["chosen"] += sum(stay.outgoing is not None for stay in opened)
        counts["chosen"] += sum(change.outgoing is not None for change in changes)
        counts["holdout"] += sum(
            isinstance(decision.outcome, Send) and decision.outcome.skip is SkipReason.HOLDOUT for decision in decisions
        )
        return +counts


def _rest(piece: Slice) -> str:
    """Where what is left of a slice begins."""
    return piece.first if piece.cursor is None else piece.cursor + _AFTER


def _opened(campaign: CompiledCampaign, piece: Slice, suffix: str, user: str, decision: Decision) -> Enrolment:
    """The new stay that a decision opens, with what the same look chose."""
    as_of = piece.as_of
    entry = decision.enters or 1
    outgoing, settled, due_at = _choice(piece, decision)
    ended = decision.outcome.reason if isinstance(decision.outcome, Exit) else None
    return Enrolment(
        id=enrolment_id(campaign.workspace, campaign.uid, suffix, entry),
        workspace=campaign.workspace,
        campaign=campaign.uid,
        user=user,
        entry=entry,
        state=StayState.ACTIVE if ended is None else StayState.ENDED,
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


def _changed(campaign: CompiledCampaign, piece: Slice, stay: Enrolment, decision: Decision) -> StayChange | None:
    """What a decision writes on a stay; None where it says what is written already."""
    outgoing, settled, due_at = _choice(piece, decision)
    reason = decision.outcome.reason if isinstance(decision.outcome, Exit) else None
    if reason is not None and stay.outgoing is not None:
        why = SkipReason.CANCELLED if reason is ExitReason.CANCELLED else SkipReason.EXITED
        settled = Settled(stay.outgoing.message, DeliveryState.SKIPPED, piece.as_of, why.value, stay.outgoing.attempts)
    nothing = reason is None and outgoing is None and settled is None and decision.converted_at is None
    if nothing and due_at == stay.due_at and (not stay.active or stay.revision == campaign.revision):
        return None
    return StayChange(
        id=stay.id,
        version=stay.version,
        revision=campaign.revision,
        as_of=piece.as_of,
        due_at=due_at,
        exit=reason,
        outgoing=outgoing,
        settled=settled,
        converted_at=decision.converted_at,
    )


def _converted(piece: Slice, stay: Enrolment, at: Instant) -> StayChange:
    """The conversion of an ended stay, found by the look that opens the next one."""
    return StayChange(stay.id, stay.version, stay.revision, piece.as_of, None, converted_at=at)


def _choice(piece: Slice, decision: Decision) -> tuple[Outgoing | None, Settled | None, Instant | None]:
    """The delivery that a decision puts on its way or settles at once, and when the stay is looked at next."""
    outcome = decision.outcome
    if not isinstance(outcome, Send):
        return None, None, decision.holds_until
    if outcome.skip is not None:
        return None, Settled(outcome.message, DeliveryState.SKIPPED, piece.as_of, outcome.skip.value), piece.as_of
    chosen = Outgoing(outcome.message, DeliveryState.QUEUED, piece.as_of, piece.as_of, slice=piece.id)
    return chosen, None, decision.holds_until
