"""Process a deciding slice batch by batch: find users, evaluate them, record the decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import repeat
from typing import Final

from engine.campaign.compiled import CompiledCampaign
from engine.clock import Clock, Instant, millis
from engine.decisions.batch_size import Tuner, blended
from engine.decisions.decide import Decision, Exit, Send
from engine.domain.enrolment import Enrolment, StayChange
from engine.domain.keys import AFTER, enrolment_prefix, kind_of_run, suffix_of_user
from engine.domain.lifecycle import LOOKED_AT, CampaignState, ExitReason
from engine.domain.work import AccessPath, RunKind, Slice, SliceKind
from engine.failpoints import passage
from engine.pipeline.campaigns.compiled_cache import CampaignCache, Entry, launching
from engine.pipeline.campaigns.event_labels import slice_labels
from engine.pipeline.campaigns.health import CampaignHealth
from engine.pipeline.evaluation.enrol import MEASURED, Enroller
from engine.pipeline.evaluation.evaluate import Evaluator, Look, Origin
from engine.pipeline.evaluation.hand_over_deliveries import DeliveryHandover
from engine.pipeline.ports.campaigns import CampaignStore
from engine.pipeline.ports.enrolments import EnrolmentStore
from engine.pipeline.ports.messaging import Messenger, Wakeup
from engine.pipeline.ports.users import UserReads
from engine.pipeline.ports.work import SliceStore
from engine.pipeline.slices.runner import Hold, LeaseLost, Progress, SliceWorker
from engine.policy.models import Profile
from engine.telemetry.events import emit

MISSED: Final = "missed"
"""Users that only the full pass found; due times, crossings and re-evaluation requests should have. Must be 0."""

TURN: Final = timedelta(seconds=1)
"""How long a worker decides a slice before it releases it: on a busy machine a slice takes a multiple of the planned
`SLICE_MS`, and the small campaigns that wait for a thread of the lane would wait as long."""

QUERY_OF_PATH: Final = {
    AccessPath.SCAN: "users.read_range",
    AccessPath.INDEX: "users.find_range",
    AccessPath.LIST: "lists.read_range",
    AccessPath.ELASTIC: "elastic.ids",
    AccessPath.CACHE: "cache.read",
}
QUERY_OF_KIND: Final = {
    SliceKind.CANDIDATES: "users.read_range",
    SliceKind.EVERYBODY: "users.read_range",
    SliceKind.STAYS: "enrolments.active",
    SliceKind.DUE: "enrolments.due",
    SliceKind.IDLE: "enrolments.idle",
}
"""The named query whose batch size a slice tunes: by its access path, or by its kind if it has no path."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The evaluations of one batch, and the cursor behind them (None: the range ends here)."""

    looks: Sequence[Look]
    cursor: str | None


class SliceDecider:
    """Process deciding slices: the use case behind the actor `process_slice`."""

    def __init__(
        self,
        *,
        worker: SliceWorker,
        campaigns: CampaignStore,
        campaign_cache: CampaignCache,
        users: UserReads,
        stays: EnrolmentStore,
        slices: SliceStore,
        evaluator: Evaluator,
        enroller: Enroller,
        messenger: Callable[[], Messenger],
        wakeup: Wakeup,
        campaign_health: CampaignHealth,
        clock: Clock,
        tuner: Tuner,
        handing_over: DeliveryHandover,
    ) -> None:
        self._handing_over = handing_over
        self._tuner = tuner
        self._campaign_health = campaign_health
        self._worker = worker
        self._campaigns = campaigns
        self._campaign_cache = campaign_cache
        self._users = users
        self._stays = stays
        self._slices = slices
        self._evaluator = evaluator
        self._enroller = enroller
        self._messenger = messenger
        self._wakeup = wakeup
        self._clock = clock
        self._pace: dict[tuple[str, str], float | None] = {}

    def run(self, slice_id: str) -> None:
        """Process one deciding slice; safe to call twice, late, or for a slice that is gone."""
        closed = self._worker.work(slice_id, self._guard, self._batch, turn=TURN)
        if closed is None or closed.run is None:
            return
        labels = slice_labels(closed, self._campaign_cache.name(closed.campaign))
        results = {name: count for name, count in closed.results.items() if name not in MEASURED}
        emit("slice.closed", **labels, as_of=closed.as_of, first=closed.first, until=closed.until, **results)
        if not self._slices.has_open(closed.run):
            self._messenger().finish(closed.run)

    def _guard(self, piece: Slice) -> str | None:
        found = self._campaigns.state_of(piece.campaign)
        if found is None:
            return "campaign_gone"
        counted = found.state is CampaignState.FINISHED and piece.kind is not SliceKind.CANDIDATES  # for conversions
        return None if found.state in LOOKED_AT or counted else found.state.value

    def _batch(self, hold: Hold) -> Progress:
        piece = hold.piece
        began = self._clock.monotonic()
        entry = self._entry(hold)
        campaign = entry.compiled.at_state(entry.record, launching=launching(piece))
        profile = self._campaign_cache.profile(entry.record)
        query = QUERY_OF_PATH[piece.path] if piece.path is not None else QUERY_OF_KIND[piece.kind]
        if campaign.queries:
            query += " slow"  # tuned apart: batches that read events take longer
        pace = (campaign.uid, query)
        size = self._tuner.choose(query, profile.batch.candidates, self._pace.get(pace))
        first = rest(piece)
        if piece.kind is SliceKind.CANDIDATES:
            cursor, counts = self._enroller.batch(hold, entry, campaign, profile, first, size)
        else:
            cursor, counts = self._looked(hold, entry, campaign, profile, size)
        took = timedelta(seconds=self._clock.monotonic() - began)
        self._campaign_health.batch(entry.record, profile, counts["users"], took, query)
        self._tuner.measured(query, size, counts["users"], took)
        self._pace[pace] = blended(self._pace.get(pace), counts["users"], took)
        self._handing_over.chosen(hold, first, cursor, counts["chosen"])
        if counts["chosen"]:
            self._wakeup.ring()
        emit(
            "batch.decided",
            **slice_labels(piece, campaign.name),
            first=first,
            until=piece.until if cursor is None else cursor + AFTER,
            profile=profile.profile,
            policy=self._campaign_cache.policies.version,
            workspace_set=self._campaign_cache.workspaces,
            as_of=piece.as_of,
            duration=took,
            **{name: count for name, count in counts.items() if name not in MEASURED},
        )
        return Progress(cursor, counts)

    def _entry(self, hold: Hold) -> Entry:
        """Return the campaign as of the last guard check: read it once per `pace` of the worker, not once per batch."""
        if hold.entry is None or hold.entry[0] != hold.looked:
            hold.entry = (hold.looked, self._campaign_cache.open(hold.piece.campaign))
        return hold.entry[1]

    def _looked(
        self, hold: Hold, entry: Entry, campaign: CompiledCampaign, profile: Profile, size: int
    ) -> tuple[str | None, Counter[str]]:
        """Evaluate one batch: everybody in a range, or enrolments; return the cursor and the counts."""
        piece = hold.piece
        everybody = piece.kind is SliceKind.EVERYBODY
        batch = self._everybody(piece, entry, size) if everybody else self._with_stays(piece, entry, profile, size)
        looks = batch.looks
        decisions = self._evaluator.evaluate(campaign, profile, looks, piece.as_of, dense=everybody)
        passage("slice.decided", (f"/{look.suffix}/" for look in looks))
        if self._clock.monotonic() >= hold.until:
            raise LeaseLost  # the rows may be stale: another worker may have continued from here
        counts = self._evaluator.record(campaign, Origin(piece.id, piece.as_of), looks, decisions, recheck=True)
        counts["users"] = len(looks)
        if everybody and piece.run is not None and kind_of_run(piece.run) == RunKind.RECONCILE:
            counts[MISSED] = sum(map(_missed, looks, decisions, repeat(piece.as_of)))
        return batch.cursor, +counts

    def _everybody(self, piece: Slice, entry: Entry, size: int) -> Batch:
        """Read the next users of the range with their latest enrolments: two contiguous range scans of MongoDB."""
        documents = self._users.read_range(piece.workspace, rest(piece), piece.until, size, entry.projection)
        if not documents:
            return Batch((), None)
        suffixes = [suffix_of_user(document["_id"]) for document in documents]
        stays = self._stays.latest(piece.workspace, piece.campaign, suffixes[0], suffixes[-1])
        read = entry.catalogue.row
        looks = [Look(suffix, read(raw), stays.get(suffix)) for suffix, raw in zip(suffixes, documents, strict=True)]
        return Batch(looks, suffixes[-1] if len(documents) == size else None)

    def _with_stays(self, piece: Slice, entry: Entry, profile: Profile, size: int) -> Batch:
        """Read the next enrolments of the range, each user's latest, with their users."""
        prefix = enrolment_prefix(piece.workspace, piece.campaign)
        after = prefix + (piece.first if piece.cursor is None else piece.cursor)
        until = prefix + piece.until
        if piece.kind is SliceKind.DUE:
            found = self._stays.due(prefix, after, until, piece.as_of, size)
        elif piece.kind is SliceKind.IDLE:
            found = self._stays.idle(prefix, after, until, piece.as_of - millis(profile.inactivity), size)
        else:
            found = self._stays.active(prefix, after, until, size)
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
        """Clear the due time of ended enrolments that a newer one followed: a crash left them due."""
        old = [stay for stay in found if stay.user in newest and newest[stay.user].id != stay.id]
        self._stays.advance([StayChange(stay.id, stay.version, stay.revision, stay.idle_since, None) for stay in old])


def _missed(look: Look, decision: Decision, as_of: Instant) -> bool:
    """Whether a full pass found something that neither a due time nor a change had brought up before."""
    if look.stay is not None and look.stay.due_at is not None and look.stay.due_at <= as_of:
        return False
    inactive = isinstance(decision.outcome, Exit) and decision.outcome.reason is ExitReason.INACTIVE
    acts = isinstance(decision.outcome, (Exit, Send)) or decision.converted_at is not None
    return acts and not inactive


def rest(piece: Slice) -> str:
    """Return the bound at which the unprocessed part of a slice of users begins."""
    return piece.first if piece.cursor is None else piece.cursor + AFTER
