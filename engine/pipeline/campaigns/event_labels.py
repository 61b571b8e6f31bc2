"""Labels of log events, and one event for each delivery that ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from engine.clock import Instant
from engine.domain.delivery import Delivery, Retry
from engine.domain.enrolment import Settled
from engine.domain.keys import delivery_key, entry_of, run_of_slice, user_id_of
from engine.domain.work import Slice
from engine.pipeline.campaigns.compiled_cache import Entry
from engine.telemetry.events import emit, emit_each


def tell(entry: Entry, ended: Sequence[Delivery], end: Settled | Retry, *, channel: str) -> None:
    """Emit one event for each delivery that got the same end, or that will be tried again."""
    alike: dict[tuple[str, Instant, str | None, int], list[Delivery]] = {}
    for delivery in ended:
        alike.setdefault((delivery.message, delivery.chosen_at, delivery.slice, delivery.attempts), []).append(delivery)
    for (message, chosen_at, chosen_by, attempts), some in alike.items():
        common: dict[str, object] = {
            "workspace": entry.record.workspace,
            "campaign": entry.record.name,
            "campaign_uid": entry.record.uid,
            "run": None if chosen_by is None else run_of_slice(chosen_by),
            "slice": chosen_by,
            "message": message,
            "channel": channel,
            "reason": end.reason,
            "chosen_at": chosen_at,
        }
        rows = [
            {
                "user": user_id_of(delivery.user),
                "entry": str(entry_of(delivery.id)),
                "key": delivery_key(delivery.id, message),
            }
            for delivery in some
        ]
        if isinstance(end, Retry):
            common |= {"attempts": attempts + 1, "after": end.after.total_seconds()}
            emit_each("delivery.retried", common, rows)
        else:
            common |= {"attempts": end.attempts, "as_of": end.at}
            emit_each(f"delivery.{end.state.value}", common, rows)


class EndedDelivery(NamedTuple):
    """A delivery that was settled without a sender; `id` names its enrolment, `user` is a user key."""

    id: str
    user: str
    settled: Settled
    chosen_at: Instant
    chosen_by: str | None


def tell_ends(workspace: str, campaign: str, uid: str, ended: Iterable[EndedDelivery]) -> None:
    """Emit one event for each delivery that ended without a sender (holdout, exited, poison, ...), as for any other."""
    alike: dict[tuple[Settled, Instant, str | None], list[EndedDelivery]] = {}
    for delivery in ended:
        alike.setdefault((delivery.settled, delivery.chosen_at, delivery.chosen_by), []).append(delivery)
    for (settled, chosen_at, chosen_by), some in alike.items():
        common: dict[str, object] = {
            "workspace": workspace,
            "campaign": campaign,
            "campaign_uid": uid,
            "run": None if chosen_by is None else run_of_slice(chosen_by),
            "slice": chosen_by,
            "message": settled.message,
            "reason": settled.reason,
            "chosen_at": chosen_at,
            "as_of": settled.at,
            "attempts": settled.attempts,
        }
        rows = [
            {
                "user": user_id_of(delivery.user),
                "entry": str(entry_of(delivery.id)),
                "key": delivery_key(delivery.id, settled.message),
            }
            for delivery in some
        ]
        emit_each(f"delivery.{settled.state.value}", common, rows)


def tell_bounce(entry: Entry, delivery: Delivery, reason: str) -> None:
    """Emit that a user's address is suppressed: it gets no more mail."""
    emit(
        "address.suppressed",
        workspace=entry.record.workspace,
        campaign=entry.record.name,
        campaign_uid=entry.record.uid,
        message=delivery.message,
        user=user_id_of(delivery.user),
        key=delivery_key(delivery.id, delivery.message),
        reason=reason,
    )


def slice_labels(slice_: Slice, campaign: str) -> dict[str, str]:
    """Return the labels of an event about a slice of the campaign with this name."""
    return {
        "workspace": slice_.workspace,
        "campaign": campaign,
        "campaign_uid": slice_.campaign,
        "slice": slice_.id,
        "kind": slice_.kind.value,
        **({"run": slice_.run} if slice_.run else {}),
    }
