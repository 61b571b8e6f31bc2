"""The labels of what is told, and one line for one delivery at its end."""

from __future__ import annotations

from engine.domain.delivery import Retry
from engine.domain.enrolment import Enrolment, Settled
from engine.domain.keys import delivery_key, user_id_of
from engine.domain.work import Slice
from engine.pipeline.book import Entry
from engine.telemetry.events import emit


def tell(entry: Entry, stay: Enrolment, end: Settled | Retry, *, channel: str) -> None:
    """Tell how a delivery of `stay` ended, or that it is tried again."""
    if stay.outgoing is None:
        return
    chosen_by = stay.outgoing.slice
    labels: dict[str, object] = {
        "workspace": stay.workspace,
        "campaign": entry.record.name,
        "campaign_uid": stay.campaign,
        "run": None if chosen_by is None else chosen_by.rsplit("/", 1)[0],
        "slice": chosen_by,
        "message": stay.outgoing.message,
        "user": user_id_of(stay.user),
        "entry": str(stay.entry),
        "key": delivery_key(stay.id, stay.outgoing.message),
        "channel": channel,
        "reason": end.reason,
        "chosen_at": stay.outgoing.chosen_at,
    }
    if isinstance(end, Retry):
        emit("delivery.retried", **labels, attempts=stay.outgoing.attempts + 1, after=end.after.total_seconds())
    else:
        emit(f"delivery.{end.state.value}", **labels, as_of=end.at, attempts=end.attempts)


def slice_labels(piece: Slice, campaign: str) -> dict[str, str]:
    """The labels of a line about a slice of the campaign of that name."""
    return {
        "workspace": piece.workspace,
        "campaign": campaign,
        "campaign_uid": piece.campaign,
        "slice": piece.id,
        "kind": piece.kind.value,
        **({"run": piece.run} if piece.run else {}),
    }
