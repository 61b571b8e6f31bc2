"""Replay failed deliveries: try them once more after a person has removed the cause of the failure."""

from __future__ import annotations

from engine.campaign.load import file_from_spec
from engine.clock import Clock
from engine.domain.campaign import CampaignRecord
from engine.domain.keys import enrolment_prefix
from engine.domain.lifecycle import CampaignState
from engine.errors import WrongCall
from engine.pipeline.control.campaign_commands import CampaignCommands
from engine.pipeline.ports.deliveries import DeliveryStore
from engine.pipeline.ports.messaging import Wakeup

REFUSED = frozenset({CampaignState.DRAFT, CampaignState.SCHEDULED, CampaignState.CANCELLED})
"""States in which the campaign has not sent anything yet, or must not send anything any more."""


def replay(
    deliveries: DeliveryStore,
    commands: CampaignCommands,
    wakeup: Wakeup,
    clock: Clock,
    record: CampaignRecord,
    message: str | None,
) -> int:
    """Queue the failed deliveries of a campaign again, of one message or of all; return how many.

    A finished campaign drains again. If this call dies half-way, or the campaign finishes concurrently, the clock
    reopens it. Raises `WrongCall` for a campaign that sends nothing, and for a message that it never had.
    """
    if record.state in REFUSED:
        raise WrongCall(f"campaign {record.name} is {record.state}: there is nothing to replay")
    count = deliveries.replay_failed(enrolment_prefix(record.workspace, record.uid), message, clock.campaign_now())
    if not count and message is not None:  # a message that an edit removed may still have failed deliveries
        spec = dict(record.spec) if isinstance(record.spec, dict) else {}
        names = [declared.name for declared in file_from_spec(spec).messages]
        if message not in names:
            raise WrongCall(f"the campaign has no message {message}", remedy=f"it has {', '.join(names)}")
    commands.replayed(record)
    if deliveries.has_outgoing([record.uid], None):
        commands.reopen(commands.named(record.name, record.workspace))
        wakeup.ring()
    return count
