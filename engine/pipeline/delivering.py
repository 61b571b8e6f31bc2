"""Deliver a slice: recover what a dead sender left, then read, compose, mark, send and settle, window by window.

`attempting` is durable before the provider is called. Consent and address are read from MongoDB just before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import uuid4

from engine.channels.port import Channel
from engine.clock import Clock, Instant
from engine.domain.delivery import Envelope, Failed, Outcome, Queued, Retry, Sent, Unknown
from engine.domain.enrolment import Settled
from engine.domain.keys import stay_prefix
from engine.domain.lifecycle import CampaignState, DeliveryState
from engine.domain.settling import Settling
from engine.domain.work import Slice
from engine.failpoints import passage
from engine.pipeline.book import CampaignBook, Entry
from engine.pipeline.compose import Composing, Skip
from engine.pipeline.ports import CampaignStore, DeliveryStore, UserReads
from engine.pipeline.recovering import Recovering
from engine.pipeline.telling import slice_labels, tell
from engine.pipeline.watching import Watching
from engine.pipeline.working import Hold, LeaseLost, Progress, SliceWorker
from engine.telemetry.events import emit

READ_AHEAD: Final = 500
"""Deliveries read at once; they are marked and sent in windows of the profile's size."""

LONGEST: Final = 1.0
"""Seconds after which a batch ends at the next window, so that a stop or a pause is noticed."""

MOST_ATTEMPTS: Final = 12
"""Attempts of one delivery before it fails as `retries_exhausted`: with back-off half a day to a day."""

LONGEST_BACKOFF: Final = timedelta(hours=4)
"""The longest pause between two attempts: RFC 5321 4.5.4.1 asks for two to three hours after the first tries."""

SENDING: Final = frozenset({CampaignState.LIVE, CampaignState.DRAINING})


@dataclass(frozen=True, slots=True)
class Window:
    """Deliveries that are marked and sent together."""

    waiting: Sequence[Queued]
    envelopes: Mapping[str, Envelope]


class Delivering:
    """The use case behind the actor `deliver_slice`."""

    def __init__(
        self,
        worker: SliceWorker,
        campaigns: CampaignStore,
        book: CampaignBook,
        users: UserReads,
        deliveries: DeliveryStore,
        recovering: Recovering,
        channels: Callable[[str], Channel],
        watching: Watching,
        clock: Clock,
    ) -> None:
        self._watching = watching
        self._worker = worker
        self._campaigns = campaigns
        self._book = book
        self._users = users
        self._deliveries = deliveries
        self._recovering = recovering
        self._channels = channels
        self._clock = clock
        self._composing = Composing()

    def run(self, slice_id: str) -> None:
        """Work on one delivering slice; safe to call twice, late or for a slice that is gone."""
        recovered: set[str] = set()

        def batch(hold: Hold) -> Progress:
            if hold.token not in recovered:
                recovered.add(hold.token)
                self._recovering.run(hold.piece)
            return self._batch(hold)

        closed = self._worker.work(slice_id, self._guard, batch)
        if closed is not None:
            emit("slice.closed", **slice_labels(closed, self._book.name(closed.campaign)), **dict(closed.results))
            if closed.results.get("failed"):
                self._watching.failures(self._book.open(closed.campaign).record)

    def _guard(self, piece: Slice) -> str | None:
        found = self._campaigns.state_of(piece.campaign)
        return "campaign_gone" if found is None else None

    def _batch(self, hold: Hold) -> Progress:
        piece = hold.piece
        entry = self._book.open(piece.campaign)
        if entry.record.state not in SENDING:
            return Progress(None, Counter())
        began = self._clock.monotonic()
        prefix = stay_prefix(piece.workspace, piece.campaign)
        after = prefix + (piece.cursor if piece.cursor is not None else piece.first)
        now = self._clock.campaign_now()
        waiting = self._deliveries.queued(prefix, after, prefix + piece.until, now, READ_AHEAD)
        wanted = self._composing.projection(entry)
        documents = {raw["_id"]: raw for raw in self._users.read_keys([one.user for one in waiting], wanted)}
        size = self._book.profile(entry.record).window_of("email", at_most_once=entry.loaded.file.at_most_once)
        counts: Counter[str] = Counter()
        done = 0
        while done < len(waiting) and (done == 0 or self._clock.monotonic() - began < LONGEST):
            window = waiting[done : done + size]
            done += len(window)
            counts += self._window(hold, entry, window, documents, now)
        took = timedelta(seconds=self._clock.monotonic() - began)
        if waiting:
            emit("batch.delivered", **slice_labels(piece, entry.record.name), duration=took, **dict(counts))
        finished = done == len(waiting) < READ_AHEAD
        return Progress(None if finished else waiting[done - 1].id.removeprefix(prefix), counts)

    def _window(
        self,
        hold: Hold,
        entry: Entry,
        waiting: Sequence[Queued],
        documents: Mapping[str, dict[str, object]],
        now: Instant,
    ) -> Counter[str]:
        window, counts = self._composed(entry, waiting, documents, now)
        token = f"{hold.piece.id}|{hold.piece.attempt}|{uuid4().hex[:12]}"
        marked = self._deliveries.mark(window.waiting, token) if window.waiting else set()
        going = [one for one in window.waiting if one.id in marked]
        if not going:
            return counts
        passage("deliver.marked", marked)
        if self._clock.monotonic() >= hold.until:
            raise LeaseLost
        passage("deliver.sending", marked)
        channel = self._channels("email")
        outcomes = channel.send([window.envelopes[one.id] for one in going])
        passage("deliver.sent")
        counts += self._settle(entry, channel.name, list(zip(going, outcomes, strict=True)), token)
        passage("deliver.settled")
        return counts

    def _composed(
        self, entry: Entry, waiting: Sequence[Queued], documents: Mapping[str, dict[str, object]], now: Instant
    ) -> tuple[Window, Counter[str]]:
        """What can be sent; what cannot settles at once as skipped or failed."""
        envelopes: dict[str, Envelope] = {}
        ended: list[tuple[Queued, Settling]] = []
        sent_at = self._clock.system_now()
        for one in waiting:
            composed = self._composing.compose(entry, one, documents.get(one.user), now=now, sent_at=sent_at)
            if isinstance(composed, Envelope):
                envelopes[one.id] = composed
                continue
            state = DeliveryState.SKIPPED if isinstance(composed, Skip) else DeliveryState.FAILED
            reason = composed.reason.value if isinstance(composed, Skip) else composed.reason
            ended.append((one, Settling(one.id, "", Settled(one.message, state, now, reason, one.attempts))))
        if ended:
            self._deliveries.skip(ended)
            passage("deliver.skipped")
        counts: Counter[str] = Counter()
        for one, settling in ended:
            tell(entry, one, settling.settled, channel="email")
            counts["skipped" if settling.settled.state is DeliveryState.SKIPPED else "failed"] += 1
        return Window([one for one in waiting if one.id in envelopes], envelopes), counts

    def _settle(
        self, entry: Entry, channel: str, answered: Sequence[tuple[Queued, Outcome]], token: str
    ) -> Counter[str]:
        now = self._clock.campaign_now()
        ends: list[tuple[Queued, Settling]] = []
        later: dict[timedelta, list[tuple[Queued, Retry]]] = {}
        counts: Counter[str] = Counter()
        for one, outcome in answered:
            settled = _settled(one, outcome, now)
            if settled is not None:
                ends.append((one, Settling(one.id, token, settled)))
                counts[settled.state.value] += 1
            elif isinstance(outcome, Retry):
                again = _backed_off(outcome, one)
                later.setdefault(again.after, []).append((one, again))
                counts["retried"] += 1
        if ends:
            self._deliveries.settle([settling for _, settling in ends])
            passage("deliver.part_settled")
        for after, put_off in later.items():
            self._deliveries.put_back([one.id for one, _ in put_off], token, after, now)
        for one, settling in ends:
            tell(entry, one, settling.settled, channel=channel)
        for one, again in (pair for put_off in later.values() for pair in put_off):
            tell(entry, one, again, channel=channel)
        return counts


def _backed_off(outcome: Retry, one: Queued) -> Retry:
    """The channel's pause, doubled with each attempt so far: an outage of hours must not use the attempts up."""
    return Retry(max(outcome.after, min(LONGEST_BACKOFF, outcome.after * 2**one.attempts)), outcome.reason)


def _settled(one: Queued, outcome: Outcome, now: Instant) -> Settled | None:
    """How an outcome settles a delivery; None where it is to be tried again."""
    attempts = one.attempts + 1
    match outcome:
        case Sent():
            return Settled(one.message, DeliveryState.SENT, now, None, attempts)
        case Failed(reason):
            return Settled(one.message, DeliveryState.FAILED, now, reason, attempts)
        case Unknown(reason):
            return Settled(one.message, DeliveryState.UNKNOWN, now, reason, attempts)
        case Retry():
            exhausted = attempts >= MOST_ATTEMPTS
            return Settled(one.message, DeliveryState.FAILED, now, "retries_exhausted", attempts) if exhausted else None
