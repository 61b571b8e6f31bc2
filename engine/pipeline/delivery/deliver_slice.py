"""Deliver a slice: read its deliveries, recover those of dead senders, and send the rest window by window.

`SliceDeliverer` reads consent and address from MongoDB just before it sends a batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Final

from engine.channels.channel import Channel
from engine.clock import Clock, millis
from engine.domain.campaign import CampaignRecord
from engine.domain.delivery import Cause, Delivery, Retry
from engine.domain.document import Document
from engine.domain.keys import enrolment_prefix
from engine.domain.lifecycle import GOING, CampaignState
from engine.domain.stuck import Stuck, StuckBy
from engine.domain.work import Slice
from engine.pipeline.campaigns.compiled_cache import CampaignCache, Entry
from engine.pipeline.campaigns.event_labels import slice_labels
from engine.pipeline.campaigns.health import CampaignHealth
from engine.pipeline.delivery.complete_enrolments import CompletionOnSettle
from engine.pipeline.delivery.compose import Composer, recipient_of
from engine.pipeline.delivery.error_brake import CampaignBrake, ErrorBrake
from engine.pipeline.delivery.late_answers import UnsettledWindows
from engine.pipeline.delivery.recover_attempts import AttemptRecovery
from engine.pipeline.delivery.send_rate import SendRateKeeper
from engine.pipeline.delivery.send_window import LONGEST_HELD, WindowSender
from engine.pipeline.delivery.sender_lease import Sender
from engine.pipeline.ports.campaigns import CampaignStore
from engine.pipeline.ports.deliveries import DeliveryStore, SuppressionStore
from engine.pipeline.ports.users import UserReads
from engine.pipeline.slices.runner import Hold, Progress, SliceWorker
from engine.telemetry.events import emit

READ_AHEAD: Final = 1_000
"""Most deliveries read at once. They are marked and sent in windows of at most the profile's size."""

LEAST_READ: Final = 100
"""Fewest deliveries read at once, however slow the provider is."""

UNKNOWN: Final = 25.0
"""Assumed pace of a provider (mails/s) before the first measurement."""

AHEAD: Final = 0.5
"""Seconds that a window should last at the last measured pace. Short, because a crash leaves marked mails in doubt."""

FEWEST: Final = 4
"""Fewest deliveries of a window, however slow the provider is."""

DELIVERY_SECONDS: Final = 0.0001
"""MongoDB's seconds for the marking and settling of one delivery (`docs/performance.md`), for the size of a window
while the gate limits."""

READ_SECONDS: Final = 0.00002
"""The same for reading a delivery and its user."""

LONGEST: Final = 5.0
"""Seconds after which a batch ends at the next window; as long as a turn."""

TAIL: Final = 1.0
"""Seconds that the end of a batch waits for answers. `UnsettledWindows` settles later answers during the next batch."""

LOOK: Final = 1.0
"""Seconds between two checks whether the campaign is still in the same state."""

LAST: Final = 15.0
"""Seconds that an ending process waits for answers; within the 20 s that `up` gives a process to end."""

BROKEN_OFF: Final = 3.0
"""Seconds that an ending process then waits until the outcomes of aborted attempts are written."""


class SliceDeliverer:
    """Deliver slices: the use case behind the actor `deliver_slice`."""

    def __init__(
        self,
        *,
        worker: SliceWorker,
        campaigns: CampaignStore,
        campaign_cache: CampaignCache,
        users: UserReads,
        deliveries: DeliveryStore,
        recovering: AttemptRecovery,
        channels: Callable[[str], Channel],
        campaign_health: CampaignHealth,
        clock: Clock,
        suppressions: SuppressionStore,
        sender: Sender,
        left_behind: UnsettledWindows,
        stop: Callable[[], bool],
        completing: CompletionOnSettle,
        send_rate: SendRateKeeper,
        bounces: str = "",
    ) -> None:
        self._suppressions = suppressions
        self._sender = sender
        self._left_behind = left_behind
        self._stop = stop
        self._completing = completing
        self._send_rate = send_rate
        self._campaign_health = campaign_health
        self._worker = worker
        self._campaigns = campaigns
        self._campaign_cache = campaign_cache
        self._users = users
        self._deliveries = deliveries
        self._recovering = recovering
        self.channels = channels
        self._clock = clock
        self._composing = Composer(bounces)
        self._pace = UNKNOWN
        self._error_brake = ErrorBrake(clock.monotonic)

    def run(self, slice_id: str) -> None:
        """Process one delivering slice; safe to call twice, late, or for a slice that is gone."""
        closed = self._worker.work(slice_id, self._guard, self._batch)
        if closed is not None:
            emit(
                "slice.closed",
                **slice_labels(closed, self._campaign_cache.name(closed.campaign)),
                **dict(closed.results),
            )
            if closed.results.get("failed") and (record := self._campaigns.get(closed.campaign)) is not None:
                self._judge_if_due(record, at_end=True)

    def _guard(self, slice_: Slice) -> str | None:
        record = self._campaigns.state_of(slice_.campaign)
        return "campaign_gone" if record is None else None

    def _batch(self, hold: Hold) -> Progress:
        slice_ = hold.slice
        entry = self._campaign_cache.open(slice_.campaign)
        prefix = enrolment_prefix(slice_.workspace, slice_.campaign)
        after, until = prefix + (slice_.cursor if slice_.cursor is not None else slice_.first), prefix + slice_.until
        if entry.record.state not in (*GOING, CampaignState.CANCELLED):
            return Progress(None, Counter())  # after a resume, open deliveries get new slices
        if self._brake_of(entry.record).engaged and self._judge_if_due(entry.record):
            return Progress(None, Counter())  # as above
        began = self._clock.monotonic()
        page = self._worker.gate.size(read_size(self._pace), READ_SECONDS)
        deliveries = self._outgoing(prefix, after, until, page)
        while self._recovering.run(entry, deliveries):
            deliveries = self._outgoing(prefix, after, until, page)  # deliveries that were queued again can be sent now
        waiting = [delivery for delivery in deliveries if delivery.token is None]
        projection = self._composing.projection(entry)
        documents = {
            raw["_id"]: raw for raw in self._users.read_keys([delivery.user for delivery in waiting], projection)
        }
        sending = self._sending(hold, entry, documents)
        try:
            done = self._windows(hold, entry, sending, waiting, documents)
            sending.finish(TAIL)
        finally:
            self._left_behind.adopt(sending)
            self._pace = sending.pace
        self._mark(entry, sending, waiting)
        took = timedelta(seconds=self._clock.monotonic() - began)
        if waiting:
            emit("batch.delivered", **slice_labels(slice_, entry.record.name), duration=took, **dict(sending.counts))
        self._judge_if_due(entry.record)
        rest = [i for i, delivery in enumerate(waiting) if delivery.id in sending.not_begun or i >= done]
        if not rest:
            return Progress(_behind(deliveries, prefix, page), sending.counts)
        before = waiting[rest[0] - 1].id.removeprefix(prefix) if rest[0] else slice_.cursor or slice_.first
        return Progress(before, sending.counts)

    def _windows(
        self,
        hold: Hold,
        entry: Entry,
        sending: WindowSender,
        waiting: Sequence[Delivery],
        documents: Mapping[str, Document],
    ) -> int:
        """Send window by window while there is time and the campaign keeps its state; return how many were handled."""
        began = checked = self._clock.monotonic()
        done = 0
        while done < len(waiting) and not sending.not_begun:
            now = self._clock.monotonic()
            if done and (now - began >= LONGEST or now >= hold.over_at or self._stop()):
                break
            if now - checked >= LOOK:
                checked = now
                if (record := self._campaigns.state_of(entry.record.uid)) is None or record.state != entry.record.state:
                    break
            most, at_once = self._most(entry), self._send_rate.at_once("email")
            size = window_size(most, sending.pace) if at_once is None else min(most, at_once)
            window = waiting[done : done + size]
            done += len(window)
            sending.window(window, documents)
            if sending.refusal is not None and not sending.taken:
                sending.hold(waiting[done:], sending.refusal)
                return len(waiting)
            if self._is_judgement_due(entry.record):
                break
        return done

    def _most(self, entry: Entry) -> int:
        most = self._campaign_cache.profile(entry.record).window_of(
            "email", at_most_once=entry.loaded.file.at_most_once
        )
        return self._worker.gate.size(most, DELIVERY_SECONDS)

    def close(self) -> None:
        """Wait for outstanding answers, abort the attempts that take too long, and write all outcomes.

        Afterwards every delivery that this process has marked is settled, provided that the store is available.
        """
        if not self._left_behind.wait(LAST):
            self.channels("email").close()
        self._left_behind.close(BROKEN_OFF)

    def _sending(self, hold: Hold, entry: Entry, documents: Mapping[str, Document]) -> WindowSender:
        addresses = [address for raw in documents.values() if (address := recipient_of(raw)) is not None]
        return WindowSender(
            deliveries=self._deliveries,
            suppressions=self._suppressions,
            composing=self._composing,
            channel=self.channels("email"),
            clock=self._clock,
            hold=hold,
            entry=entry,
            sender=self._sender,
            completing=self._completing,
            # taken after the deliveries were read, so it is not earlier than their `chosen_at`
            now=self._clock.campaign_clock(),
            pace=self._pace,
            go_on=lambda: not self._stop(),
            brake=self._brake_of(entry.record),
            permit=partial(self._permit, entry.record),
            singly=self._most(entry) == 1,
            suppressed=self._suppressions.among(entry.record.workspace, addresses),
        )

    def _mark(self, entry: Entry, sending: WindowSender, waiting: Sequence[Delivery]) -> None:
        """Mark the campaign as stuck if the provider refuses us; clear the mark once it takes what it had refused."""
        record, refusal = entry.record, sending.refusal
        marked = record.stuck_by.get(StuckBy.SENDER)
        if refusal is not None and _is_obstacle(refusal, sending, waiting):
            reason = _sentence(refusal)
            if marked is None or marked.reason != reason:
                self._campaigns.set_stuck(record.uid, StuckBy.SENDER, reason)
                labels = {"workspace": record.workspace, "campaign": record.name, "campaign_uid": record.uid}
                emit("campaign.stuck", **labels, reason=reason)
        elif marked is not None and (sending.mended or (sending.taken and self._is_old(marked))):
            self._campaigns.set_stuck(record.uid, StuckBy.SENDER, None)

    def _permit(self, record: CampaignRecord, count: int, go_on: Callable[[], bool]) -> bool:
        """Wait until the channel's rate lets `count` mails begin; without a rate they may begin at once."""
        if self._send_rate.limit("email") is None:
            return True
        lane = self._campaign_cache.profile(record).deliver_lane
        return self._send_rate.permit("email", count, lane, go_on)

    def _brake_of(self, record: CampaignRecord) -> CampaignBrake:
        return self._error_brake.of(record, self._campaign_cache.profile(record).errors)

    def _is_judgement_due(self, record: CampaignRecord, *, at_end: bool = False) -> bool:
        if record.state not in GOING:
            return False
        processes = self._campaign_cache.policies.processes(self._campaign_cache.profile(record).deliver_lane)
        return self._brake_of(record).is_due(processes=processes, at_end=at_end)

    def _judge_if_due(self, record: CampaignRecord, *, at_end: bool = False) -> bool:
        """Judge the campaign's failures if they may exceed its budget; return whether it is not to be sent further."""
        if not self._is_judgement_due(record, at_end=at_end):
            return False
        brake, began = self._brake_of(record), self._clock.monotonic()
        if brake.engaged:
            return self._campaign_health.burst(record, brake.recent)
        counted = self._campaign_health.failures(record)
        brake.judged(counted, began)
        return False

    def _is_old(self, marked: Stuck) -> bool:
        """Whether the mark is so old that every refused delivery has been retried since."""
        return self._clock.system_now() - marked.since > 2 * millis(LONGEST_HELD)

    def _outgoing(self, prefix: str, after: str, until: str, most: int) -> list[Delivery]:
        return self._deliveries.outgoing(prefix, after, until, self._clock.campaign_now(), most)


def _is_obstacle(refusal: Retry, sending: WindowSender, waiting: Sequence[Delivery]) -> bool:
    """Whether the refusal needs a person.

    A refusal that only a person can fix counts at once, an outage at the second try. An `UNSURE` refusal counts while
    the provider has taken no mail of the batch.
    """
    if refusal.cause is Cause.PROVIDER:
        return not sending.taken and any(delivery.held > 0 for delivery in waiting)
    return refusal.cause is Cause.US or not sending.taken


def _sentence(refusal: Retry) -> str:
    said = f": {refusal.said}" if refusal.said else ""
    if refusal.cause is Cause.PROVIDER:
        return f"no mail can be handed over ({refusal.reason}{said}); the mails wait, and the engine tries again"
    return f"the mail server refuses us ({refusal.reason}{said}); the mails wait until the cause is fixed"


def window_size(most: int, pace: float) -> int:
    """Return the size of the next window: what begins within `AHEAD` s at `pace` (mails/s), at most `most`."""
    return min(most, max(FEWEST, int(pace * AHEAD)))


def read_size(pace: float) -> int:
    """Return how many deliveries to read at once: twice what one turn sends at `pace` (mails/s), within limits."""
    return min(READ_AHEAD, max(LEAST_READ, int(2 * pace * LONGEST)))


def _behind(deliveries: list[Delivery], prefix: str, page: int) -> str | None:
    """Return the cursor behind a page of deliveries; None after the last page."""
    return deliveries[-1].id.removeprefix(prefix) if len(deliveries) == page else None
