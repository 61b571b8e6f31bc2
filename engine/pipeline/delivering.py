"""Deliver a slice: recover what a dead sender left, then read, compose, mark, send and settle, window by window.

`attempting` is durable before the provider is called. Consent and address are read from MongoDB just before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
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

READ_AHEAD: Final = 1_000
"""Deliveries read at once; they are marked and sent in windows of at most the profile's size."""

SURELY: Final = 50
"""Deliveries of a window before it is known how many the provider takes in a second."""

PATIENCE: Final = 2.0
"""Seconds that a larger window may take by the pace of the last one: a window must not outlast its slice's lease."""

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
        self._pace = SURELY / PATIENCE

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
        waiting = self._deliveries.queued(prefix, after, prefix + piece.until, self._clock.campaign_now(), READ_AHEAD)
        campaign_now = self._clock.campaign_clock()  # asked for after they were read: not earlier than they were chosen
        wanted = self._composing.projection(entry)
        documents = {raw["_id"]: raw for raw in self._users.read_keys([one.user for one in waiting], wanted)}
        most = self._book.profile(entry.record).window_of("email", at_most_once=entry.loaded.file.at_most_once)
        counts: Counter[str] = Counter()
        done = 0
        while done < len(waiting) and (done == 0 or self._clock.monotonic() - began < LONGEST):
            window = waiting[done : done + window_size(most, self._pace)]
            done += len(window)
            counts += self._window(hold, entry, window, documents, campaign_now)
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
        campaign_now: Callable[[], Instant],
    ) -> Counter[str]:
        window, counts = self._composed(entry, waiting, documents, campaign_now())
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
        began = self._clock.monotonic()
        outcomes = channel.send([window.envelopes[one.id] for one in going])
        self._pace = len(going) / max(0.001, self._clock.monotonic() - began)
        passage("deliver.sent")
        counts += self._settle(entry, channel.name, zip(going, outcomes, strict=True), token, campaign_now())
        passage("deliver.settled")
        return counts

    def _composed(
        self, entry: Entry, waiting: Sequence[Queued], documents: Mapping[str, dict[str, object]], now: Instant
    ) -> tuple[Window, Counter[str]]:
        """What can be sent; what cannot settles at once as skipped or failed."""
        envelopes: dict[str, Envelope] = {}
        ended: dict[Settled, list[Queued]] = {}
        sent_at = self._clock.system_now()
        for one in waiting:
            composed = self._composing.compose(entry, one, documents.get(one.user), now=now, sent_at=sent_at)
            if isinstance(composed, Envelope):
                envelopes[one.id] = composed
                continue
            state = DeliveryState.SKIPPED if isinstance(composed, Skip) else DeliveryState.FAILED
            reason = composed.reason.value if isinstance(composed, Skip) else composed.reason
            ended.setdefault(Settled(one.message, state, now, reason, one.attempts), []).append(one)
        if ended:
            self._deliveries.skip([(one, end) for end, some in ended.items() for one in some])
            passage("deliver.skipped")
        counts: Counter[str] = Counter()
        for end, some in ended.items():
            tell(entry, some, end, channel="email")
            counts[end.state.value] += len(some)
        return Window([one for one in waiting if one.id in envelopes], envelopes), counts

    def _settle(
        self, entry: Entry, channel: str, answered: Iterable[tuple[Queued, Outcome]], token: str, now: Instant
    ) -> Counter[str]:
        """What became of a window, equal ends together: settled, or put back to be tried later."""
        alike: dict[tuple[Outcome, str, int], list[Queued]] = {}
        for one, outcome in answered:
            alike.setdefault((outcome, one.message, one.attempts), []).append(one)
        ended: list[tuple[Settled, list[Queued]]] = []
        later: list[tuple[Retry, list[Queued]]] = []
        for (outcome, message, attempts), some in alike.items():
            end = _end(outcome, message, attempts, now)
            if isinstance(end, Settled):
                ended.append((end, some))
            else:
                later.append((end, some))
        if ended:
            self._deliveries.settle([Settling([one.id for one in some], token, end) for end, some in ended])
            passage("deliver.part_settled")
        for again, some in later:
            self._deliveries.put_back([one.id for one in some], token, again.after, now)
        counts: Counter[str] = Counter()
        for end, some in ended:
            tell(entry, some, end, channel=channel)
            counts[end.state.value] += len(some)
        for again, some in later:
            tell(entry, some, again, channel=channel)
            counts["retried"] += len(some)
        return counts


def window_size(most: int, pace: float) -> int:
    """Deliveries of the next window: up to `most`, beyond `SURELY` only what takes `PATIENCE` at `pace` (mails/s)."""
    return min(most, max(SURELY, int(pace * PATIENCE)))


def _end(outcome: Outcome, message: str, attempts: int, now: Instant) -> Settled | Retry:
    """How an outcome ends a delivery that had `attempts` before this one, or after which pause it is tried again."""
    match outcome:
        case Sent():
            return Settled(message, DeliveryState.SENT, now, None, attempts + 1)
        case Failed(reason):
            return Settled(message, DeliveryState.FAILED, now, reason, attempts + 1)
        case Unknown(reason):
            return Settled(message, DeliveryState.UNKNOWN, now, reason, attempts + 1)
        case Retry(after, reason):
            if attempts + 1 >= MOST_ATTEMPTS:
                return Settled(message, DeliveryState.FAILED, now, "retries_exhausted", attempts + 1)
            # The channel's pause, doubled with each attempt so far: an outage of hours must not use the attempts up.
            return Retry(max(after, min(LONGEST_BACKOFF, after * 2**attempts)), reason)
