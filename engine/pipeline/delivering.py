"""Deliver a slice: read what is on its way, recover what a dead sender left, and send the rest window by window.

Consent and address are read from MongoDB just before a batch is sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from engine.channels.port import Channel
from engine.clock import Clock
from engine.domain.delivery import Delivery
from engine.domain.keys import stay_prefix
from engine.domain.lifecycle import GOING, CampaignState
from engine.domain.work import Slice
from engine.pipeline.book import CampaignBook
from engine.pipeline.compose import Composing
from engine.pipeline.ports import CampaignStore, DeliveryStore, UserReads
from engine.pipeline.recovering import Recovering
from engine.pipeline.sending import Sending
from engine.pipeline.telling import slice_labels
from engine.pipeline.watching import Watching
from engine.pipeline.working import Hold, Progress, SliceWorker
from engine.telemetry.events import emit

READ_AHEAD: Final = 1_000
"""Deliveries read at once; they are marked and sent in windows of at most the profile's size."""

SURELY: Final = 50
"""Deliveries of a window before it is known how many the provider takes in a second."""

PATIENCE: Final = 2.0
"""Seconds that a larger window may take by the pace of the last one: a window must not outlast its slice's lease."""

LONGEST: Final = 1.0
"""Seconds after which a batch ends at the next window, so that a stop or a pause is noticed."""


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
        bounces: str = "",
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
        self._composing = Composing(bounces)
        self._pace = SURELY / PATIENCE

    def run(self, slice_id: str) -> None:
        """Work on one delivering slice; safe to call twice, late or for a slice that is gone."""
        closed = self._worker.work(slice_id, self._guard, self._batch)
        if closed is not None:
            emit("slice.closed", **slice_labels(closed, self._book.name(closed.campaign)), **dict(closed.results))
            if closed.results.get("failed"):
                record = self._campaigns.get(closed.campaign)
                if record is not None:
                    self._watching.failures(record)

    def _guard(self, piece: Slice) -> str | None:
        found = self._campaigns.state_of(piece.campaign)
        return "campaign_gone" if found is None else None

    def _batch(self, hold: Hold) -> Progress:
        piece = hold.piece
        entry = self._book.open(piece.campaign)
        prefix = stay_prefix(piece.workspace, piece.campaign)
        after, until = prefix + (piece.cursor if piece.cursor is not None else piece.first), prefix + piece.until
        if entry.record.state not in (*GOING, CampaignState.CANCELLED):
            return Progress(None, Counter())  # when it is resumed, whatever is on its way gets slices anew
        began = self._clock.monotonic()
        found = self._outgoing(prefix, after, until)
        while self._recovering.run(piece, entry, found):
            found = self._outgoing(prefix, after, until)  # what was put back is sent in its turn
        waiting = [one for one in found if one.token is None]
        sending = Sending(
            self._deliveries,
            self._composing,
            self._channels("email"),
            self._clock,
            hold,
            entry,
            # asked for after they were read: not earlier than they were chosen
            now=self._clock.campaign_clock(),
            pace=self._pace,
        )
        wanted = self._composing.projection(entry)
        documents = {raw["_id"]: raw for raw in self._users.read_keys([one.user for one in waiting], wanted)}
        most = self._book.profile(entry.record).window_of("email", at_most_once=entry.loaded.file.at_most_once)
        done = 0
        try:
            while done < len(waiting) and (done == 0 or self._clock.monotonic() - began < LONGEST):
                window = waiting[done : done + window_size(most, sending.pace)]
                done += len(window)
                sending.window(window, documents)
        finally:
            sending.settle()
            self._pace = sending.pace
        took = timedelta(seconds=self._clock.monotonic() - began)
        if waiting:
            emit("batch.delivered", **slice_labels(piece, entry.record.name), duration=took, **dict(sending.counts))
        if done < len(waiting):
            return Progress(waiting[done - 1].id.removeprefix(prefix), sending.counts)
        return Progress(_behind(found, prefix), sending.counts)

    def _outgoing(self, prefix: str, after: str, until: str) -> list[Delivery]:
        return self._deliveries.outgoing(prefix, after, until, self._clock.campaign_now(), READ_AHEAD)


def window_size(most: int, pace: float) -> int:
    """Deliveries of the next window: up to `most`, beyond `SURELY` only what takes `PATIENCE` at `pace` (mails/s)."""
    return min(most, max(SURELY, int(pace * PATIENCE)))


def _behind(found: list[Delivery], prefix: str) -> str | None:
    """The cursor behind a page of deliveries; None where it was the last one."""
    return found[-1].id.removeprefix(prefix) if len(found) == READ_AHEAD else None
