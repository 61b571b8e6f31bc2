"""Replay: deliveries that failed are tried once more, because a person has mended what made them fail."""

from __future__ import annotations

from engine.campaign.load import file_from_spec
from engine.clock import Clock
from engine.domain.campaign import CampaignRecord
from engine.domain.keys import stay_prefix
from engine.domain.lifecycle import CampaignState
from engine.errors import WrongCall
from engine.pipeline.ports import DeliveryStore, Doorbell
from engine.pipeline.steering import Steering

REFUSED = frozenset({CampaignState.DRAFT, CampaignState.SCHEDULED, CampaignState.CANCELLED})
"""States in which nothing was sent yet, or nothing may be sent any more."""


def replay(
    deliveries: DeliveryStore,
    steering: Steering,
    bell: Doorbell,
    clock: Clock,
    record: CampaignRecord,
    message: str | None,
) -> int:
    """Queue the failed deliveries of a campaign again (of one message, or of all); gives how many.

    A finished campaign is draining again; where this call dies half-way, or the campaign finishes meanwhile, the clock
    sees to it. Raises `WrongCall` for a campaign that sends nothing, and for a message that it never had.
    """
    if record.state in REFUSED:
        raise WrongCall(f"campaign {record.name} is {record.state}: there is nothing to replay")
    count = deliveries.replay_failed(stay_prefix(record.workspace, record.uid), message, clock.campaign_now())
    if not count and message is not None:  # one that an edit took away may have failed deliveries
        spec = dict(record.spec) if isinstance(record.spec, dict) else {}
        names = [one.name for one in file_from_spec(spec).messages]
        if message not in names:
            raise WrongCall(f"the campaign has no message {message}", remedy=f"it has {', '.join(names)}")
    steering.replayed(record)
    if deliveries.has_outgoing([record.uid], None):
        steering.reopen(steering.named(record.name, record.workspace))
        bell.ring()
    return count
