"""Send the deliveries of one batch window by window: compose, mark, send, settle.

`attempting` is durable before the provider is called. What a window came to is written together with the mark of the
next one, in that order: a crash in between leaves at most one window attempting, and MongoDB is waited for once a
window.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import uuid4

from engine.channels.port import Channel
from engine.clock import Clock, Instant
from engine.domain.delivery import Bounce, Cause, Delivery, Envelope, Failed, Outcome, Retry, Sent, Skipped, Unknown
from engine.domain.enrolment import Settled
from engine.domain.lifecycle import CampaignState, DeliveryState, SkipReason
from engine.domain.settling import End, PutBack, Settling
from engine.domain.suppression import Bounced
from engine.failpoints import passage
from engine.pipeline.book import Entry
from engine.pipeline.compose import Composing, Skip
from engine.pipeline.ports import DeliveryStore, Document, SuppressionStore
from engine.pipeline.telling import tell, tell_bounce
from engine.pipeline.working import Hold, LeaseLost

MOST_ATTEMPTS: Final = 12
"""Attempts of one delivery before it fails as `retries_exhausted`: with back-off half a day to a day."""

LONGEST_BACKOFF: Final = timedelta(hours=4)
"""The longest pause between two attempts: RFC 5321 4.5.4.1 asks for two to three hours after the first tries."""

LONGEST_HELD: Final = timedelta(minutes=10)
"""The longest pause of a delivery whose refusal is not the recipient's: once it is mended, all goes on soon."""


class Answered(NamedTuple):
    """A window that was sent under `token`, with what the provider said at campaign time `at`; not yet settled."""

    token: str
    outcomes: Sequence[tuple[Delivery, Outcome]]
    at: Instant


class Sending:
    """The windows of one batch, under the lease of its slice.

    `now` gives campaign time, `suppressed` are addresses of the batch that bounced. `pace` is how many mails a second
    the provider took in the last window, `counts` what has been settled, by the names of the telemetry contract.
    `refusal` is the last answer that was not about a recipient, `taken` whether the provider has taken a mail of this
    batch, `mended` whether one that it had refused before for such a cause.
    """

    def __init__(
        self,
        deliveries: DeliveryStore,
        suppressions: SuppressionStore,
        composing: Composing,
        channel: Channel,
        clock: Clock,
        hold: Hold,
        entry: Entry,
        *,
        now: Callable[[], Instant],
        pace: float,
        keeping: Callable[[Hold], AbstractContextManager[None]] = lambda _: nullcontext(),
        suppressed: Collection[str] = (),
    ) -> None:
        self._deliveries = deliveries
        self._suppressions = suppressions
        self._composing = composing
        self._channel = channel
        self._clock = clock
        self._hold = hold
        self._entry = entry
        self._now = now
        self._keeping = keeping
        self._suppressed = suppressed
        self.refusal: Retry | None = None
        self.taken = False
        self.mended = False
        self._answered: Answered | None = None
        self.pace = pace
        self.counts: Counter[str] = Counter()

    def window(self, waiting: Sequence[Delivery], documents: Mapping[str, Document]) -> None:
        """Settle the window before and send this one; `settle` writes what it came to.

        `documents` are the users by key. Raises `LeaseLost` where the lease has run out: nothing is sent then, and
        nothing marked, if it is noticed before.
        """
        envelopes = self._composed(waiting, documents)
        if self._clock.monotonic() >= self._hold.until:
            raise LeaseLost
        token = f"{self._hold.piece.id}|{self._hold.piece.attempt}|{uuid4().hex[:12]}"
        marked = self._write([one for one in waiting if one.id in envelopes], token)
        going = [one for one in waiting if one.id in marked]
        if not going:
            return
        passage("deliver.marked", marked)
        if self._clock.monotonic() >= self._hold.until:
            raise LeaseLost
        passage("deliver.sending", marked)
        began = self._clock.monotonic()
        with self._keeping(self._hold):
            outcomes = self._channel.send([envelopes[one.id] for one in going])
        self.pace = len(going) / max(0.001, self._clock.monotonic() - began)
        passage("deliver.sent")
        self.taken = self.taken or any(isinstance(outcome, Sent) for outcome in outcomes)
        judged = list(zip(going, map(self._judged, outcomes), strict=True))
        self._note(judged, envelopes)
        self._answered = Answered(token, judged, self._now())

    def settle(self) -> None:
        """Write what the last window came to."""
        if self._answered is not None:
            self._write([], "")

    def hold(self, waiting: Sequence[Delivery], refusal: Retry) -> None:
        """Put off what was not tried, since the provider refuses us: not one of it would be taken now."""
        held: dict[timedelta, list[Delivery]] = {}
        for one in waiting:
            held.setdefault(_pause(refusal, one.held), []).append(one)
        for after, some in held.items():
            self._deliveries.hold(some, after)
        self.counts["retried"] += len(waiting)

    def _note(self, judged: Sequence[tuple[Delivery, Outcome]], envelopes: Mapping[str, Envelope]) -> None:
        """See what a window says beyond its mails: that we are refused, and which addresses are dead.

        An address is suppressed before its delivery settles, so that no crash loses it.
        """
        dead: list[Bounced] = []
        for one, outcome in judged:
            match outcome:
                case Sent():
                    self.mended = self.mended or one.held > 0
                case Retry(cause=Cause.PROVIDER | Cause.US | Cause.UNSURE):
                    self.refusal = outcome
                case Failed(bounce=bounce) if bounce is Bounce.SURE or (bounce is Bounce.LIKELY and self.taken):
                    address = envelopes[one.id].recipient
                    dead.append(Bounced(address, outcome.reason, self._entry.record.uid, one.message))
                    tell_bounce(self._entry, one, outcome.reason)
                case _:
                    pass
        if dead:
            self._suppressions.add(self._entry.record.workspace, dead)
            passage("deliver.suppressed")

    def _judged(self, outcome: Outcome) -> Outcome:
        """An answer that left open whom it is about is about the recipient once the provider takes others' mails."""
        if isinstance(outcome, Retry) and outcome.cause is Cause.UNSURE and self.taken:
            return Failed(outcome.reason)
        return outcome

    def _composed(self, waiting: Sequence[Delivery], documents: Mapping[str, Document]) -> dict[str, Envelope]:
        """What can be sent, by the id of the stay; what cannot settles at once as skipped or failed, or waits."""
        envelopes: dict[str, Envelope] = {}
        held: list[Delivery] = []
        ended: dict[Settled, list[Delivery]] = {}
        now, sent_at = self._now(), self._clock.system_now()
        cancelled = Skip(SkipReason.CANCELLED) if self._entry.record.state is CampaignState.CANCELLED else None
        for one in waiting:
            composed = cancelled or self._composing.compose(
                self._entry, one, documents.get(one.user), now=now, sent_at=sent_at, suppressed=self._suppressed
            )
            if isinstance(composed, Envelope):
                envelopes[one.id] = composed
                continue
            if isinstance(composed, Retry):
                self.refusal = composed
                held.append(one)
                continue
            state = DeliveryState.SKIPPED if isinstance(composed, Skip) else DeliveryState.FAILED
            reason = composed.reason.value if isinstance(composed, Skip) else composed.reason
            ended.setdefault(Settled(one.message, state, now, reason, one.attempts), []).append(one)
        if held and self.refusal is not None:
            self.hold(held, self.refusal)
        if ended:
            self._deliveries.skip([(one, end) for end, some in ended.items() for one in some])
            passage("deliver.skipped")
        for end, some in ended.items():
            tell(self._entry, some, end, channel="email")
            self.counts[end.state.value] += len(some)
        return envelopes

    def _write(self, waiting: Sequence[Delivery], token: str) -> set[str]:
        """In one write: what the window before came to, equal ends together, and the mark of those that are to go."""
        answered = self._answered
        ends = [] if answered is None else _ends(answered)
        written = [] if answered is None else [_written(answered, end, some) for end, some in ends]
        marked = self._deliveries.settle_and_mark(written, waiting, token)
        self._answered = None
        for end, some in ends:
            tell(self._entry, some, end, channel=self._channel.name)
            self.counts["retried" if isinstance(end, Retry) else end.state.value] += len(some)
        if ends:
            passage("deliver.settled")
        return marked


def _ends(answered: Answered) -> list[tuple[Settled | Retry, list[Delivery]]]:
    """Deliveries by what they came to: settled, or to be tried later."""
    alike: dict[tuple[Outcome, Cause | None, str, int, int], list[Delivery]] = {}
    for one, outcome in answered.outcomes:
        cause = outcome.cause if isinstance(outcome, Retry) else None
        alike.setdefault((outcome, cause, one.message, one.attempts, one.held), []).append(one)
    return [
        (_end(outcome, message, attempts, held, answered.at), some)
        for (outcome, _, message, attempts, held), some in alike.items()
    ]


def _written(answered: Answered, end: Settled | Retry, some: Sequence[Delivery]) -> End:
    ids = [one.id for one in some]
    if isinstance(end, Retry):
        counted = end.cause in (Cause.RECIPIENT, Cause.UNSURE)
        held = 0 if end.cause is Cause.RECIPIENT else some[0].held + 1
        return PutBack(ids, answered.token, end.after, answered.at, counted, held)
    return Settling(ids, answered.token, end)


def _pause(refusal: Retry, held: int) -> timedelta:
    """How long a delivery waits that was put off `held` times in a row for a cause that is not the recipient's."""
    return max(refusal.after, min(LONGEST_HELD, refusal.after * (1 << min(held, 16))))


def _end(outcome: Outcome, message: str, attempts: int, held: int, now: Instant) -> Settled | Retry:
    """How an outcome ends a delivery that had `attempts` before this one, or after which pause it is tried again."""
    match outcome:
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
            # The channel's pause, doubled with each attempt so far: an outage of hours must not use the attempts up.
            return Retry(max(after, min(LONGEST_BACKOFF, after * 2**attempts)), reason, cause)
