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
from engine.domain.enrolment import Enrolment, EnrolmentChange
from engine.domain.keys import AFTER, enrolment_prefix, kind_of_run, suffix_of_user
from engine.domain.lifecycle import LOOKED_AT, CampaignState, ExitReason
from engine.domain.work import AccessPath, RunKind, Slice, SliceKind
from engine.failpoints import passage
from engine.pipeline.campaigns.compiled_cache import CampaignCache, Entry, launching
from engine.pipeline.campaigns.event_labels import slice_labels
from engine.pipeline.campaigns.health import CampaignHealth
from engine.pipeline.evaluation.enrol import MEASURED, Enroller
from engine.pipeline.evaluation.evaluate import Evaluation, Evaluator, Origin
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

    evaluations: Sequence[Evaluation]
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
        enrolments: EnrolmentStore,
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
        self._enrolments = enrolments
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

    def _guard(self, slice_: Slice) -> str | None:
        record = self._campaigns.state_of(slice_.campaign)
        if record is None:
            return "campaign_gone"
        counted = record.state is CampaignState.FINISHED and slice_.kind is not SliceKind.CANDIDATES  # for conversions
        return None if record.state in LOOKED_AT or counted else record.state.value

    def _batch(self, hold: Hold) -> Progress:
        slice_ = hold.slice
        began = self._clock.monotonic()
        entry = self._entry(hold)
        campaign = entry.compiled.at_state(entry.record, launching=launching(slice_))
        profile = self._campaign_cache.profile(entry.record)
        query = QUERY_OF_PATH[slice_.path] if slice_.path is not None else QUERY_OF_KIND[slice_.kind]
        if campaign.queries:
            query += " slow"  # tuned apart: batches that read events take longer
        pace = (campaign.uid, query)
        tuned = self._tuner.choose(query, profile.batch.candidates, self._pace.get(pace))
        size = self._worker.gate.size(tuned, self._pace.get(pace))
        first = rest(slice_)
        if slice_.kind is SliceKind.CANDIDATES:
            cursor, counts = self._enroller.batch(hold, entry, campaign, profile, first, size)
        else:
            cursor, counts = self._evaluate_batch(hold, entry, campaign, profile, size)
        took = timedelta(seconds=self._clock.monotonic() - began)
        self._campaign_health.batch(entry.record, profile, counts["users"], took, query)
        if size == tuned:
            self._tuner.measured(query, size, counts["users"], took)
        self._pace[pace] = blended(self._pace.get(pace), counts["users"], took)
        self._handing_over.chosen(hold, first, cursor, counts["chosen"])
        if counts["chosen"]:
            self._wakeup.ring()
        emit(
            "batch.decided",
            **slice_labels(slice_, campaign.name),
            first=first,
            until=slice_.until if cursor is None else cursor + AFTER,
            profile=profile.profile,
            policy=self._campaign_cache.policies.version,
            workspace_set=self._campaign_cache.workspaces,
            as_of=slice_.as_of,
            duration=took,
            **{name: count for name, count in counts.items() if name not in MEASURED},
        )
        return Progress(cursor, counts)

    def _entry(self, hold: Hold) -> Entry:
        """Return the campaign as of the last guard check: read it once per `pace` of the worker, not once per batch."""
        if hold.entry is None or hold.entry[0] != hold.guarded_at:
            hold.entry = (hold.guarded_at, self._campaign_cache.open(hold.slice.campaign))
        return hold.entry[1]

    def _evaluate_batch(
        self, hold: Hold, entry: Entry, campaign: CompiledCampaign, profile: Profile, size: int
    ) -> tuple[str | None, Counter[str]]:
        """Evaluate one batch: everybody in a range, or enrolments; return the cursor and the counts."""
        slice_ = hold.slice
        everybody = slice_.kind is SliceKind.EVERYBODY
        batch = self._everybody(slice_, entry, size) if everybody else self._enrolled(slice_, entry, profile, size)
        evaluations = batch.evaluations
        decisions = self._evaluator.evaluate(campaign, profile, evaluations, slice_.as_of, dense=everybody)
        passage("slice.decided", (f"/{evaluation.suffix}/" for evaluation in evaluations))
        if self._clock.monotonic() >= hold.until:
            raise LeaseLost  # the rows may be stale: another worker may have continued from here
        counts = self._evaluator.record(campaign, Origin(slice_.id, slice_.as_of), evaluations, decisions, recheck=True)
        counts["users"] = len(evaluations)
        if everybody and slice_.run is not None and kind_of_run(slice_.run) == RunKind.RECONCILE:
            counts[MISSED] = sum(map(_missed, evaluations, decisions, repeat(slice_.as_of)))
        return batch.cursor, +counts

    def _everybody(self, slice_: Slice, entry: Entry, size: int) -> Batch:
        """Read the next users of the range with their latest enrolments: two contiguous range scans of MongoDB."""
        documents = self._users.read_range(slice_.workspace, rest(slice_), slice_.until, size, entry.projection)
        if not documents:
            return Batch((), None)
        suffixes = [suffix_of_user(document["_id"]) for document in documents]
        enrolments = self._enrolments.latest(slice_.workspace, slice_.campaign, suffixes[0], suffixes[-1])
        read = entry.catalogue.row
        evaluations = [
            Evaluation(suffix, read(raw), enrolments.get(suffix))
            for suffix, raw in zip(suffixes, documents, strict=True)
        ]
        return Batch(evaluations, suffixes[-1] if len(documents) == size else None)

    def _enrolled(self, slice_: Slice, entry: Entry, profile: Profile, size: int) -> Batch:
        """Read the next enrolments of the range, each user's latest, with their users."""
        prefix = enrolment_prefix(slice_.workspace, slice_.campaign)
        after = prefix + (slice_.first if slice_.cursor is None else slice_.cursor)
        until = prefix + slice_.until
        if slice_.kind is SliceKind.DUE:
            enrolments = self._enrolments.due(prefix, after, until, slice_.as_of, size)
        elif slice_.kind is SliceKind.IDLE:
            enrolments = self._enrolments.idle(prefix, after, until, slice_.as_of - millis(profile.inactivity), size)
        else:
            enrolments = self._enrolments.active(prefix, after, until, size)
        if not enrolments:
            return Batch((), None)
        latest = {enrolment.user: enrolment for enrolment in enrolments}
        ended = [user for user, enrolment in latest.items() if not enrolment.active]
        newest = self._enrolments.latest_of(slice_.campaign, ended) if ended else {}
        self._forget_superseded(enrolments, newest)
        latest |= newest
        documents = {raw["_id"]: raw for raw in self._users.read_keys(latest, entry.projection)}
        read = entry.catalogue.row
        evaluations = [
            Evaluation(enrolment.suffix, read(documents[user]) if user in documents else None, enrolment)
            for user, enrolment in latest.items()
        ]
        cursor = enrolments[-1].id.removeprefix(prefix) if len(enrolments) == size else None
        return Batch(evaluations, cursor)

    def _forget_superseded(self, enrolments: Sequence[Enrolment], newest: Mapping[str, Enrolment]) -> None:
        """Clear the due time of ended enrolments that a newer one followed: a crash left them due."""
        old = [
            enrolment
            for enrolment in enrolments
            if enrolment.user in newest and newest[enrolment.user].id != enrolment.id
        ]
        self._enrolments.advance(
            [
                EnrolmentChange(enrolment.id, enrolment.version, enrolment.revision, enrolment.idle_since, None)
                for enrolment in old
            ]
        )


def _missed(evaluation: Evaluation, decision: Decision, as_of: Instant) -> bool:
    """Whether a full pass found something that neither a due time nor a change had brought up before."""
    if (
        evaluation.enrolment is not None
        and evaluation.enrolment.due_at is not None
        and evaluation.enrolment.due_at <= as_of
    ):
        return False
    inactive = isinstance(decision.outcome, Exit) and decision.outcome.reason is ExitReason.INACTIVE
    acts = isinstance(decision.outcome, (Exit, Send)) or decision.converted_at is not None
    return acts and not inactive


def rest(slice_: Slice) -> str:
    """Return the bound at which the unprocessed part of a slice of users begins."""
    return slice_.first if slice_.cursor is None else slice_.cursor + AFTER
