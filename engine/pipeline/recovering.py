"""Recover deliveries that a dead sender left `attempting`: ask the channel, else follow the guarantee."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from engine.channels.port import Channel
from engine.clock import Clock
from engine.domain.delivery import Queued
from engine.domain.enrolment import Enrolment, Outgoing, Settled
from engine.domain.keys import delivery_key, stay_prefix, user_id_of
from engine.domain.lifecycle import DeliveryState
from engine.domain.settling import Settling
from engine.domain.work import Slice
from engine.failpoints import passage
from engine.pipeline.book import CampaignBook, Entry
from engine.pipeline.ports import DeliveryStore, SliceStore
from engine.pipeline.telling import tell
from engine.policy.models import Guarantee
from engine.telemetry.events import emit

AT_ONCE: Final = 1_000
"""Open attempts read at once."""


class Recovering:
    """Settles attempts whose sender is gone; the first step of every claim of a delivering slice."""

    def __init__(
        self,
        book: CampaignBook,
        deliveries: DeliveryStore,
        slices: SliceStore,
        channels: Callable[[str], Channel],
        clock: Clock,
    ) -> None:
        self._book = book
        self._deliveries = deliveries
        self._slices = slices
        self._channels = channels
        self._clock = clock

    def run(self, piece: Slice) -> int:
        """Settle the orphans in the range of `piece`, which the caller holds; gives how many."""
        prefix = stay_prefix(piece.workspace, piece.campaign)
        first, count = prefix + piece.first, 0
        while True:
            found = self._deliveries.attempting(prefix, first, prefix + piece.until, AT_ONCE)
            orphans = [
                (stay, stay.outgoing) for stay in found if stay.outgoing and self._orphaned(piece, stay.outgoing)
            ]
            if orphans:
                entry = self._book.open(piece.campaign)
                for stay, outgoing in orphans:
                    self._recover(entry, stay, outgoing)
                count += len(orphans)
                passage("deliver.recovered")
            if len(found) < AT_ONCE:
                return count
            first = found[-1].id + "\0"

    def _orphaned(self, piece: Slice, outgoing: Outgoing) -> bool:
        """Whether the claim that marked this attempt is over."""
        slice_id, attempt = (outgoing.token or "||").split("|")[:2]
        if slice_id == piece.id:
            return int(attempt) < piece.attempt
        other = self._slices.get(slice_id)
        return other is None or other.token is None or str(other.attempt) != attempt

    def _recover(self, entry: Entry, stay: Enrolment, outgoing: Outgoing) -> None:
        key = delivery_key(stay.id, outgoing.message)
        channel = self._channels("email")
        there = channel.find(key)
        rule = self._book.profile(entry.record).guarantee("email", at_most_once=entry.loaded.file.at_most_once)
        token = outgoing.token or ""
        now = self._clock.campaign_now()
        state = DeliveryState.QUEUED
        if there is True:
            state = DeliveryState.SENT
        elif there is None and rule is Guarantee.AT_MOST_ONCE:
            state = DeliveryState.UNKNOWN
        if state is DeliveryState.QUEUED:
            changed = self._deliveries.put_back([stay.id], token, timedelta(0), now)
        else:
            reason = None if there else "sender_died"
            settled = Settled(outgoing.message, state, now, reason, outgoing.attempts)
            changed = self._deliveries.settle([Settling([stay.id], token, settled)])
            if changed:
                attempts = outgoing.attempts - 1  # those before the one that was left open
                one = Queued(
                    stay.id, stay.user, stay.version, outgoing.message, outgoing.chosen_at, attempts, outgoing.slice
                )
                tell(entry, [one], settled, channel=channel.name)
        if changed:
            emit(
                "delivery.recovered",
                workspace=stay.workspace,
                campaign=entry.record.name,
                campaign_uid=stay.campaign,
                slice=outgoing.slice,
                message=outgoing.message,
                user=user_id_of(stay.user),
                entry=str(stay.entry),
                key=key,
                channel=channel.name,
                state=state.value,
                chosen_at=outgoing.chosen_at,
                attempts=outgoing.attempts,
            )
