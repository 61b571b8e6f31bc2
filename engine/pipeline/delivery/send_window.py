"""Send the deliveries of one batch window by window: compose, mark, send, settle.

A delivery is durably `attempting` before `WindowSender` calls the provider. `WindowSender` marks the next window once
most mails of the previous one have begun. The same ordered bulk write settles the answers that have arrived by then:
a window costs one round trip to MongoDB, and a late answer delays nothing. However a batch ends, every marked window
is settled: `UnsettledWindows` takes over the windows that are still open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple

from engine.channels.channel import Channel, Flight
from engine.clock import Clock, Instant
from engine.domain.delivery import (
    Bounce,
    Cause,
    Delivery,
    Envelope,
    Failed,
    NotBegun,
    Outcome,
    Retry,
    Sent,
    Skipped,
    Unknown,
)
from engine.domain.document import Document
from engine.domain.enrolment import Settled
from engine.domain.lifecycle import CampaignState, DeliveryState, SkipReason
from engine.domain.settling import End, PutBack, Settling
from engine.domain.suppression import Bounced
from engine.failpoints import passage
from engine.pipeline.campaigns.compiled_cache import Entry
from engine.pipeline.campaigns.event_labels import tell, tell_bounce
from engine.pipeline.delivery.complete_enrolments import CompletionOnSettle
from engine.pipeline.delivery.compose import Composer, Skip
from engine.pipeline.delivery.error_brake import CampaignBrake
from engine.pipeline.delivery.sender_lease import Sender
from engine.pipeline.ports.deliveries import DeliveryStore, SuppressionStore
from engine.pipeline.slices.runner import Hold, LeaseLost

MOST_ATTEMPTS: Final = 12
"""Attempts of one delivery before it fails as `retries_exhausted`; with back-off they take half a day to a day."""

LONGEST_BACKOFF: Final = timedelta(hours=4)
"""Longest pause between two attempts. RFC 5321 4.5.4.1 asks for two to three hours after the first tries."""

LONGEST_HELD: Final = timedelta(minutes=10)
"""Longest pause after a refusal that the recipient did not cause: deliveries resume soon after the cause is fixed."""


SMOOTHING: Final = 0.5
"""Weight of the newest window in the running average of the pace."""

FASTER: Final = 2.0
"""Largest factor by which one window may raise the pace: a burst into idle connections proves little."""

LOW: Final = 0.25
"""Share of a window that may still wait when the sender marks the next one, so that no connection idles meanwhile."""


@dataclass(slots=True)
class Window:
    """A window on its way: deliveries marked with `token`, and their mails by enrolment id."""

    token: str
    deliveries: Sequence[Delivery]
    envelopes: Mapping[str, Envelope]
    flight: Flight


class Answered(NamedTuple):
    """Outcomes of deliveries sent under `token`, collected at campaign time `at` and not yet settled."""

    token: str
    outcomes: Sequence[tuple[Delivery, Outcome]]
    at: Instant


class WindowSender:
    """Send the windows of one batch, under the lease of its slice and marked by `sender`.

    Parameters: `now` returns campaign time. `suppressed` holds the addresses of the batch that bounced. `go_on` says
    whether there is time to begin another mail. `brake` hears all outcomes, and forbids another mail while nearly all
    of them are failures. `permit` waits until so many mails may begin. With `singly` a window waits for all its answers
    before the next one is sent.

    Results: `pace` is the number of mails per second that the provider let this thread begin. `counts` holds the
    settled deliveries by the names of the telemetry contract. `refusal` is the last answer that was not about a
    recipient. `taken` says whether the provider accepted a mail of this batch. `mended` says whether the provider
    accepted a mail that had been put off for a cause other than its recipient. `not_begun` holds the ids of the
    enrolments whose mail was marked but not begun.
    """

    def __init__(
        self,
        *,
        deliveries: DeliveryStore,
        suppressions: SuppressionStore,
        composing: Composer,
        channel: Channel,
        clock: Clock,
        hold: Hold,
        entry: Entry,
        sender: Sender,
        completing: CompletionOnSettle,
        now: Callable[[], Instant],
        pace: float,
        go_on: Callable[[], bool],
        brake: CampaignBrake,
        permit: Callable[[int, Callable[[], bool]], bool],
        singly: bool = False,
        suppressed: Collection[str] = (),
    ) -> None:
        self._deliveries = deliveries
        self._suppressions = suppressions
        self._composing = composing
        self._channel = channel
        self._clock = clock
        self._hold = hold
        self._entry = entry
        self._sender = sender
        self._now = now
        self._go_on = go_on
        self._brake = brake
        self._permit = permit
        self._singly = singly
        self._completing = completing
        self._suppressed = suppressed
        self._windows: list[Window] = []
        self._answered: list[Answered] = []
        self._dead: list[Bounced] = []
        self.refusal: Retry | None = None
        self.taken = False
        self.mended = False
        self.pace = pace
        self.counts: Counter[str] = Counter()
        self.not_begun: set[str] = set()

    @property
    def finished(self) -> bool:
        """Whether every window is answered and settled."""
        return not self._windows and not self._answered

    def window(self, waiting: Sequence[Delivery], documents: Mapping[str, Document]) -> None:
        """Mark and send a window, and settle earlier answers in the same write; return once most of it has begun.

        `documents` are the users by key. Raises `LeaseLost` if the lease has run out. Nothing is sent then. Nothing is
        marked either, if the check before the write notices it.
        """
        envelopes = self.composed(waiting, documents)
        composed = [delivery for delivery in waiting if delivery.id in envelopes]
        if composed and not self._permit(len(composed), self._may_begin):
            self.not_begun.update(delivery.id for delivery in composed)
            return
        if self._clock.monotonic() >= self._hold.until:
            raise LeaseLost
        token = self._sender.token() if composed else ""
        try:
            marked = self.write(composed, token)
            going = [delivery for delivery in composed if delivery.id in marked]
            if not going:
                return
            passage("deliver.marked", marked)
            if self._clock.monotonic() >= self._hold.until:
                raise LeaseLost  # noqa: TRY301 - handled like every other exception here
            passage("deliver.sending", marked)
        except BaseException:  # raised again; no mail has begun, but the marks may be in the database
            self._came(token, [(delivery, NotBegun()) for delivery in composed])
            raise
        began = self._clock.monotonic()
        flight = self._channel.begin(
            [envelopes[delivery.id] for delivery in going], lambda: self._sender.alive and self._may_begin()
        )
        flight.observe(self._brake.heard)
        self._windows.append(Window(token, going, envelopes, flight))
        left = max(0.0, self._hold.over_at - began)
        if self._singly:
            flight.wait_for_all(left)
        else:
            flight.wait(int(len(going) * LOW), left)
        if self._clock.monotonic() < self._hold.over_at:  # later, nothing begins: no measure of the pace
            self.pace = paced(self.pace, len(going) - flight.waiting, self._clock.monotonic() - began)
        self._gather()

    def _may_begin(self) -> bool:
        """Whether there is time to begin another mail, and no reason against it."""
        return self._clock.monotonic() < self._hold.over_at and not self._brake.engaged and self._go_on()

    def finish(self, within: float) -> None:
        """Wait up to `within` seconds for outstanding answers, then settle those that have arrived."""
        until = self._clock.monotonic() + within
        for window in self._windows:
            window.flight.wait_for_all(max(0.0, until - self._clock.monotonic()))
        self.catch_up()

    def catch_up(self) -> None:
        """Settle the answers that have arrived."""
        self._gather()
        if self._answered:
            self.write([], "")

    def _gather(self) -> None:
        """Collect the outcomes that have arrived from all windows."""
        come = False
        for window in [*self._windows]:
            came = [(window.deliveries[place], outcome) for place, outcome in window.flight.take()]
            if came:
                self.taken = self.taken or any(isinstance(outcome, Sent) for _, outcome in came)
                judged = [(delivery, self._judged(outcome)) for delivery, outcome in came]
                self._came(window.token, judged)
                self._hear(judged, window.envelopes)
                come = come or any(not isinstance(outcome, NotBegun) for _, outcome in judged)
            if not window.flight.outstanding and not window.flight.came:
                self._windows.remove(window)
        if come:
            passage("deliver.sent")

    def _came(self, token: str, judged: Sequence[tuple[Delivery, Outcome]]) -> None:
        self._answered.append(Answered(token, judged, self._now()))
        self.not_begun.update(delivery.id for delivery, outcome in judged if isinstance(outcome, NotBegun))

    def hold(self, waiting: Sequence[Delivery], refusal: Retry) -> None:
        """Put off deliveries that were not tried: the provider refuses us and would not take any of them now."""
        held: dict[timedelta, list[Delivery]] = {}
        for delivery in waiting:
            held.setdefault(_pause(refusal, delivery.held), []).append(delivery)
        for after, some in held.items():
            self._deliveries.hold(some, after)
        self.counts["retried"] += len(waiting)

    def _hear(self, judged: Sequence[tuple[Delivery, Outcome]], envelopes: Mapping[str, Envelope]) -> None:
        """Note whether the provider refuses us, and which addresses are dead."""
        for delivery, outcome in judged:
            match outcome:
                case Sent():
                    self.mended = self.mended or delivery.held > 0
                case Retry(cause=Cause.PROVIDER | Cause.US | Cause.UNSURE):
                    self.refusal = outcome
                case Failed() if self._brake.engaged:
                    pass  # a provider that refuses nearly everybody says nothing about one address
                case Failed(bounce=bounce) if bounce is Bounce.SURE or (bounce is Bounce.LIKELY and self.taken):
                    address = envelopes[delivery.id].recipient
                    self._dead.append(Bounced(address, outcome.reason, self._entry.record.uid, delivery.message))
                    tell_bounce(self._entry, delivery, outcome.reason)
                case _:
                    pass

    def _suppress(self) -> None:
        """Suppress dead addresses before their deliveries settle, so that a crash cannot lose one."""
        if self._dead:
            self._suppressions.add(self._entry.record.workspace, self._dead)
            self._dead = []
            passage("deliver.suppressed")

    def _judged(self, outcome: Outcome) -> Outcome:
        """Turn an `UNSURE` refusal into `Failed` once the provider has taken a mail: it is then about the recipient."""
        if isinstance(outcome, Retry) and outcome.cause is Cause.UNSURE and self.taken:
            return Failed(outcome.reason)
        return outcome

    def composed(self, waiting: Sequence[Delivery], documents: Mapping[str, Document]) -> dict[str, Envelope]:
        """Return the mails to send, by enrolment id; settle or put off the deliveries for which there is none.

        If nearly all mails of the campaign fail to be composed, the rest of the window is not begun.
        """
        envelopes: dict[str, Envelope] = {}
        held: list[Delivery] = []
        ended: dict[Settled, list[Delivery]] = {}
        now, sent_at = self._now(), self._clock.system_now()
        cancelled = Skip(SkipReason.CANCELLED) if self._entry.record.state is CampaignState.CANCELLED else None
        for place, delivery in enumerate(waiting):
            if self._brake.engaged and cancelled is None:
                self.not_begun.update(rest.id for rest in waiting[place:])
                break
            composed = cancelled or self._composing.compose(
                self._entry,
                delivery,
                documents.get(delivery.user),
                now=now,
                sent_at=sent_at,
                suppressed=self._suppressed,
            )
            if isinstance(composed, Envelope):
                envelopes[delivery.id] = composed
                continue
            if isinstance(composed, Retry):
                self.refusal = composed
                held.append(delivery)
                continue
            if isinstance(composed, Failed):
                self._brake.not_composed()
            state = DeliveryState.SKIPPED if isinstance(composed, Skip) else DeliveryState.FAILED
            reason = composed.reason.value if isinstance(composed, Skip) else composed.reason
            ended.setdefault(Settled(delivery.message, state, now, reason, delivery.attempts), []).append(delivery)
        if held and self.refusal is not None:
            self.hold(held, self.refusal)
        if ended:
            self._deliveries.skip(self._completing.unsent(self._entry, ended, documents))
            passage("deliver.skipped")
        for end, some in ended.items():
            tell(self._entry, some, end, channel="email")
            self.counts[end.state.value] += len(some)
            self._brake.settled(end.state, len(some))
        return envelopes

    def write(self, waiting: Sequence[Delivery], token: str) -> set[str]:
        """Settle the collected answers and mark `waiting` in one write; return the ids that are now marked."""
        self._suppress()
        ends = [(answered, end, some) for answered in self._answered for end, some in _ends(answered)]
        written = [_written(answered, end, some) for answered, end, some in ends]
        deliveries = [delivery for answered in self._answered for delivery, _ in answered.outcomes]
        if written:
            written = self._completing.complete(self._entry, written, deliveries)
        marked = self._deliveries.settle_and_mark(written, waiting, token)
        self._answered.clear()
        for _, end, some in ends:
            if isinstance(end, NotBegun):
                continue
            tell(self._entry, some, end, channel=self._channel.name)
            if isinstance(end, Retry):
                self.counts["retried"] += len(some)
                continue
            self.counts[end.state.value] += len(some)
            self._brake.settled(end.state, len(some))
        if ends:
            passage("deliver.settled")
        return marked


def paced(before: float, begun: int, seconds: float) -> float:
    """Return the pace (mails/s) after a window of which `begun` mails were begun within `seconds`."""
    now = min(max(1, begun) / max(0.001, seconds), FASTER * before)
    return (1 - SMOOTHING) * before + SMOOTHING * now


def _ends(answered: Answered) -> list[tuple[Settled | Retry | NotBegun, list[Delivery]]]:
    """Group deliveries by their end: settled, to be retried later, or not begun."""
    alike: dict[tuple[Outcome, Cause | None, str, int, int], list[Delivery]] = {}
    for delivery, outcome in answered.outcomes:
        cause = outcome.cause if isinstance(outcome, Retry) else None
        alike.setdefault((outcome, cause, delivery.message, delivery.attempts, delivery.held), []).append(delivery)
    return [
        (_end(outcome, message, attempts, held, answered.at), some)
        for (outcome, _, message, attempts, held), some in alike.items()
    ]


def _written(answered: Answered, end: Settled | Retry | NotBegun, some: Sequence[Delivery]) -> End:
    ids = [delivery.id for delivery in some]
    if isinstance(end, NotBegun):
        return PutBack(ids, answered.token, timedelta(0), answered.at, counted=False, held=some[0].held)
    if isinstance(end, Retry):
        counted = end.cause in (Cause.RECIPIENT, Cause.UNSURE)
        held = 0 if end.cause is Cause.RECIPIENT else some[0].held + 1
        return PutBack(ids, answered.token, end.after, answered.at, counted, held)
    return Settling(ids, answered.token, end)


def _pause(refusal: Retry, held: int) -> timedelta:
    """Return the pause of a delivery put off `held` times in a row for a cause other than its recipient."""
    return max(refusal.after, min(LONGEST_HELD, refusal.after * (1 << min(held, 16))))


def _end(outcome: Outcome, message: str, attempts: int, held: int, now: Instant) -> Settled | Retry | NotBegun:
    """Return how an outcome ends a delivery with `attempts` earlier attempts, or the pause until its retry."""
    match outcome:
        case NotBegun():
            return outcome
        case Sent():
            return Settled(message, DeliveryState.SENT, now, None, attempts + 1)
        case Skipped(why):
            return Settled(message, DeliveryState.SKIPPED, now, why.value, attempts + 1)
        case Failed(reason):
            return Settled(message, DeliveryState.FAILED, now, reason, attempts + 1)
        case Unknown(reason):
            return Settled(message, DeliveryState.UNKNOWN, now, reason, attempts + 1)
        case Retry(after, reason, Cause.PROVIDER | Cause.US as cause):
            return Retry(_pause(outcome, held), reason, cause)
        case Retry(after, reason, cause):
            if attempts + 1 >= MOST_ATTEMPTS:
                return Settled(message, DeliveryState.FAILED, now, "retries_exhausted", attempts + 1)
            # Double the channel's pause with each attempt so far: an outage of hours must not use up the attempts.
            return Retry(max(after, min(LONGEST_BACKOFF, after * 2**attempts)), reason, cause)
