"""The labels of what is told, and one line for one delivery at its end."""

from __future__ import annotations

from engine.domain.delivery import Queued, Retry
from engine.domain.enrolment import Settled
from engine.domain.keys import delivery_key, user_id_of
from engine.domain.work import Slice
from engine.pipeline.book import Entry
from engine.telemetry.events import emit


def tell(entry: Entry, one: Queued, end: Settled | Retry, *, channel: str) -> None:
    """Tell how a delivery ended, or that it is tried again."""
    labels: dict[str, object] = {
        "workspace": entry.record.workspace,
        "campaign": entry.record.name,
        "campaign_uid": entry.record.uid,
        "run": None if one.slice is None else one.slice.rsplit("/", 1)[0],
        "slice": one.slice,
        "message": one.message,
        "user": user_id_of(one.user),
        "entry": str(int(one.id.rsplit("/", 1)[1])),
        "key": delivery_key(one.id, one.message),
        "channel": channel,
        "reason": end.reason,
        "chosen_at": one.chosen_at,
    }
    if isinstance(end, Retry):
        emit("delivery.retried", **labels, attempts=one.attempts + 1, after=end.after.total_seconds())
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
