"""Convert enrolments and slices to MongoDB documents and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from engine.clock import Instant, instant
from engine.domain.document import Document
from engine.domain.enrolment import Enrolment, Outgoing, Settled
from engine.domain.lifecycle import DeliveryState, EnrolmentState, ExitReason, SliceState
from engine.domain.slice_record import SliceRecord, Turn
from engine.domain.work import AccessPath, Slice, SliceKind


def without_none(document: Mapping[str, Any]) -> Document:
    """Return `document` without its None values: a missing value is an absent field, never a null."""
    return {key: value for key, value in document.items() if value is not None}


def _instant(value: datetime | None) -> Instant | None:
    return None if value is None else instant(value if value.tzinfo else value.replace(tzinfo=UTC))


def settled_document(delivery: Settled) -> Document:
    """Build one settled delivery for `enrolments.settled`."""
    return without_none(
        {
            "message": delivery.message,
            "state": delivery.state.value,
            "at": delivery.at,
            "reason": delivery.reason,
            "attempts": delivery.attempts or None,
        }
    )


def outgoing_document(outgoing: Outgoing) -> Document:
    """Build the delivery in progress for a write that chooses it (always queued, never tried)."""
    return without_none(
        {
            "message": outgoing.message,
            "state": outgoing.state.value,
            "chosen_at": outgoing.chosen_at,
            "not_before": outgoing.not_before,
            "attempts": outgoing.attempts,
            "slice": outgoing.slice,
        }
    )


def enrolment_document(enrolment: Enrolment) -> Document:
    """Build the document of a new enrolment."""
    return without_none(
        {
            "_id": enrolment.id,
            "workspace": enrolment.workspace,
            "campaign": enrolment.campaign,
            "user": enrolment.user,
            "entry": enrolment.entry,
            "state": enrolment.state.value,
            "reason": enrolment.reason and enrolment.reason.value,
            "detail": enrolment.detail,
            "revision": enrolment.revision,
            "version": enrolment.version,
            "entered_at": enrolment.entered_at,
            "settled_at": enrolment.settled_at,
            "ended_at": enrolment.ended_at,
            "idle_since": None if enrolment.outgoing else enrolment.idle_since,
            "due_at": enrolment.due_at,
            "holdout": enrolment.holdout,
            "converted_at": enrolment.converted_at,
            "outgoing": enrolment.outgoing and outgoing_document(enrolment.outgoing),
            "settled": [settled_document(delivery) for delivery in enrolment.settled],
        }
    )


def read_outgoing(raw: Document) -> Outgoing:
    """Read `enrolments.outgoing`."""
    return Outgoing(
        message=raw["message"],
        state=DeliveryState(raw["state"]),
        chosen_at=raw["chosen_at"],
        not_before=raw["not_before"],
        attempts=raw.get("attempts", 0),
        retry_at=_instant(raw.get("retry_at")),
        token=raw.get("token"),
        slice=raw.get("slice"),
    )


def read_enrolment(raw: Document) -> Enrolment:
    """Read an enrolment document."""
    return Enrolment(
        id=raw["_id"],
        workspace=raw["workspace"],
        campaign=raw["campaign"],
        user=raw["user"],
        entry=raw["entry"],
        state=EnrolmentState(raw["state"]),
        entered_at=raw["entered_at"],
        revision=raw["revision"],
        version=raw["version"],
        settled_at=raw.get("settled_at"),
        ended_at=raw.get("ended_at"),
        reason=ExitReason(raw["reason"]) if "reason" in raw else None,
        detail=raw.get("detail"),
        due_at=raw.get("due_at"),
        holdout=raw.get("holdout", False),
        converted_at=raw.get("converted_at"),
        outgoing=read_outgoing(raw["outgoing"]) if "outgoing" in raw else None,
        settled=tuple(
            Settled(
                entry["message"],
                DeliveryState(entry["state"]),
                entry["at"],
                entry.get("reason"),
                entry.get("attempts", 0),
            )
            for entry in raw.get("settled", ())
        ),
    )


def slice_document(slice_: Slice) -> Document:
    """Build the document of a new slice."""
    return without_none(
        {
            "_id": slice_.id,
            "run": slice_.run,
            "workspace": slice_.workspace,
            "campaign": slice_.campaign,
            "kind": slice_.kind.value,
            "as_of": slice_.as_of,
            "first": slice_.first,
            "until": slice_.until,
            "state": slice_.state.value,
            "cursor": slice_.cursor,
            "attempt": slice_.attempt,
            "suspect": slice_.suspect,
            "deaths": slice_.deaths,
            "errors": slice_.errors,
            "results": slice_.results,
            "after": slice_.after,
            "path": slice_.path and slice_.path.value,
            "of": slice_.of,
            "slow": slice_.slow or None,
        }
    )


def read_slice(raw: Document) -> Slice:
    """Read a slice document."""
    return Slice(
        id=raw["_id"],
        run=raw.get("run"),
        workspace=raw["workspace"],
        campaign=raw["campaign"],
        kind=SliceKind(raw["kind"]),
        as_of=raw["as_of"],
        first=raw["first"],
        until=raw["until"],
        state=SliceState(raw["state"]),
        cursor=raw.get("cursor"),
        attempt=raw["attempt"],
        suspect=raw["suspect"],
        deaths=raw["deaths"],
        errors=raw["errors"],
        token=raw["lease"]["token"] if raw.get("lease") else None,
        results=raw.get("results", {}),
        after=raw.get("after"),
        path=AccessPath(raw["path"]) if "path" in raw else None,
        of=raw.get("of"),
        overruns=raw.get("overruns", 0),
        slow=raw.get("slow", False),
    )


SLICE_RECORD: Final = dict.fromkeys(
    ("workspace", "campaign", "kind", "added_at", "turns", "worked", "lane", "suspect", "first", "until", "of"), 1
) | {"results.users": 1}
"""The fields that `read_slice_record` needs."""


def read_slice_record(raw: Document) -> SliceRecord:
    """Read what an ended slice's document says about its work; without `added_at` it says nothing about its turns."""
    added_at = _instant(raw.get("added_at"))
    numbers = [int(number) for number in raw.get("turns", ())] if added_at is not None else []
    return SliceRecord(
        id=raw["_id"],
        workspace=raw["workspace"],
        campaign=raw["campaign"],
        kind=SliceKind(raw["kind"]),
        added_at=added_at or 0,
        turns=tuple(map(Turn, numbers[::3], numbers[1::3], numbers[2::3])),
        worked=int(raw.get("worked", 0)),
        lane=raw.get("lane"),
        users=int(raw.get("results", {}).get("users", 0)),
        suspect=raw["suspect"],
        first=raw["first"],
        until=raw["until"],
        whole="of" in raw,
    )
