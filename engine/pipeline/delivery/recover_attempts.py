"""Recover deliveries that a dead sender left `attempting`: ask the channel, otherwise apply the guarantee."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from engine.channels.channel import Channel
from engine.clock import Clock
from engine.domain.delivery import Delivery
from engine.domain.enrolment import Settled
from engine.domain.keys import delivery_key, entry_of, user_id_of
from engine.domain.lifecycle import DeliveryState
from engine.domain.settling import End, PutBack, Settling
from engine.failpoints import passage
from engine.pipeline.campaigns.compiled_cache import CampaignCache, Entry
from engine.pipeline.campaigns.event_labels import tell
from engine.pipeline.delivery.complete_enrolments import CompletionOnSettle, is_known
from engine.pipeline.delivery.sender_lease import GRACE, SENDERS, sender_of
from engine.pipeline.ports.deliveries import DeliveryStore
from engine.pipeline.ports.users import UserReads
from engine.pipeline.ports.work import LeaseReads
from engine.policy.models import Guarantee
from engine.telemetry.events import emit


class AttemptRecovery:
    """Settle or queue again the attempts of dead senders, before anything else of their range is sent."""

    def __init__(
        self,
        *,
        campaign_cache: CampaignCache,
        deliveries: DeliveryStore,
        leases: LeaseReads,
        users: UserReads,
        channels: Callable[[str], Channel],
        clock: Clock,
        completing: CompletionOnSettle,
        sender: str,
    ) -> None:
        """`sender` is the name of this process as a sender. It counts as living even if its lease has run out."""
        self._sender = sender
        self._users = users
        self._completing = completing
        self._campaign_cache = campaign_cache
        self._deliveries = deliveries
        self._leases = leases
        self._channels = channels
        self._clock = clock

    def run(self, entry: Entry, deliveries: Sequence[Delivery]) -> int:
        """Recover the deliveries whose sender is dead; return how many. Skip those of living senders."""
        marked = [(delivery, token) for delivery in deliveries if (token := delivery.token) is not None]
        living = {self._sender, *self._leases.living(SENDERS, GRACE)} if marked else set()
        orphans = [(delivery, token) for delivery, token in marked if sender_of(token) not in living]
        if orphans:
            read = self._users.read_keys([delivery.user for delivery, _ in orphans], {"deleted": 1})
            known = {raw["_id"] for raw in read if is_known(raw)}
            for delivery, token in orphans:
                self._recover(entry, delivery, token, known=delivery.user in known)
            passage("deliver.recovered")
        return len(orphans)

    def _recover(self, entry: Entry, delivery: Delivery, token: str, *, known: bool) -> None:
        key = delivery_key(delivery.id, delivery.message)
        channel = self._channels("email")
        there = channel.find(key)
        rule = self._campaign_cache.profile(entry.record).guarantee(
            "email", at_most_once=entry.loaded.file.at_most_once
        )
        now = self._clock.campaign_now()
        state = DeliveryState.QUEUED
        if there is True:
            state = DeliveryState.SENT
        elif there is None and rule is Guarantee.AT_MOST_ONCE:
            state = DeliveryState.UNKNOWN
        settled = Settled(delivery.message, state, now, None if there else "sender_died", delivery.attempts + 1)
        queued = state is DeliveryState.QUEUED
        end: End = (
            PutBack([delivery.id], token, timedelta(0), now) if queued else Settling([delivery.id], token, settled)
        )
        ends = self._completing.complete(entry, [end], [delivery]) if known else [end]
        if not self._deliveries.settle(ends):
            return
        if not queued:
            tell(entry, [delivery], settled, channel=channel.name)
        emit(
            "delivery.recovered",
            workspace=entry.record.workspace,
            campaign=entry.record.name,
            campaign_uid=entry.record.uid,
            slice=delivery.slice,
            message=delivery.message,
            user=user_id_of(delivery.user),
            entry=str(entry_of(delivery.id)),
            key=key,
            channel=channel.name,
            state=state.value,
            chosen_at=delivery.chosen_at,
            attempts=delivery.attempts + 1,
        )
