"""Deliveries inside the enrolments: queued, marked or settled. Writes are compare-and-sets on state and token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Final

from pymongo import UpdateMany, UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database

from engine.clock import Instant, millis
from engine.domain.delivery import Delivery, Versioned
from engine.domain.document import Document
from engine.domain.enrolment import Settled
from engine.domain.keys import campaign_of
from engine.domain.settling import Completion, End, PutBack, Unsent
from engine.query_metrics import named_queries
from engine.stores.mongo.bulk_writes import write
from engine.stores.mongo.client import MAJORITY
from engine.stores.mongo.work_documents import settled_document

REPLAYED: Final = ("completed", "failed")
"""Exit reasons of ended enrolments whose failed deliveries are sent after all if a person asks for it."""

REPLAYED_AT_ONCE: Final = 1_000
"""Deliveries that one write queues again."""

_READ: Final = {
    "user": 1,
    "version": 1,
    "outgoing.message": 1,
    "outgoing.chosen_at": 1,
    "outgoing.attempts": 1,
    "outgoing.slice": 1,
    "outgoing.token": 1,
    "outgoing.held": 1,
    "settled.message": 1,
    "ended_at": 1,
}

_ANY: Final = {"$exists": True}
"""Matches any `outgoing.not_before`: any delivery in progress; the index `outgoing` contains nothing else."""


@named_queries("deliveries")
class Deliveries:
    """Reads and writes of the deliver step, on the collection of the enrolments."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection("enrolments", write_concern=MAJORITY)

    def outgoing(self, prefix: str, after: str, until: str, now: Instant, limit: int) -> list[Delivery]:
        """Return up to `limit` deliveries in progress at campaign time `now`, by id.

        Their enrolment ids lie in (`after`, `until`). The result includes deliveries that are being attempted, and
        excludes those whose retry lies ahead in system time. Index: the `_id` range of the campaign if many deliveries
        are in progress, `outgoing` if few are; MongoDB's planner tries both.
        """
        query = {
            "_id": {"$gt": max(after, prefix), "$lt": until},
            "campaign": campaign_of(prefix),
            "outgoing.not_before": {"$lte": now},
            # The expression is expensive, and few deliveries are retries.
            "$or": [{"outgoing.retry_at": {"$exists": False}}, {"$expr": {"$lte": ["$outgoing.retry_at", "$$NOW"]}}],
        }
        documents = self._all.find(query, _READ, batch_size=limit).sort("_id", 1).limit(limit)
        return [_read(raw) for raw in documents]

    def first_campaign(self, now: Instant, leave_out: Sequence[str], in_hands_of: Sequence[str] = ()) -> str | None:
        """Return the uid of a campaign with a delivery in progress, other than `leave_out`. Index: `outgoing`.

        Only deliveries that may be sent at campaign time `now` (and, for retries, at system time) count. Deliveries
        that a sender of `in_hands_of` (their names) has marked do not.
        """
        query: Document = {
            "campaign": {"$nin": list(leave_out)},
            "outgoing.not_before": {"$lte": now},
            "$expr": {"$lte": [{"$ifNull": ["$outgoing.retry_at", "$$NOW"]}, "$$NOW"]},
        }
        if in_hands_of:
            query["$nor"] = [{"outgoing.token": {"$gte": f"{name}|", "$lt": f"{name}}}"}} for name in in_hands_of]
        document = self._all.find_one(query, {"campaign": 1}, hint="outgoing")
        return None if document is None else str(document["campaign"])

    def has_outgoing(
        self, campaigns: Sequence[str] | None, now: Instant | None, *, leave_out: Sequence[str] = ()
    ) -> bool:
        """Whether `campaigns` (None: any but `leave_out`) have a delivery in progress; index `outgoing`.

        With `now`, deliveries put off beyond that campaign time do not count.
        """
        query: Document = {"outgoing.not_before": _ANY if now is None else {"$lte": now}}
        if campaigns is not None:
            query["campaign"] = {"$in": list(campaigns)}
        elif leave_out:
            query["campaign"] = {"$nin": list(leave_out)}
        return self._all.find_one(query, {"_id": 1}, hint="outgoing") is not None

    def overdue(self, before: Instant, limit: int, campaign: str | None = None) -> dict[str, Instant]:
        """Return for up to `limit` campaigns when their oldest delivery in progress could first be sent, by uid.

        Only deliveries that could be sent before campaign time `before` count, and only those of `campaign` if one is
        given. One seek a campaign. Index: `outgoing`, covered.
        """
        found: dict[str, Instant] = {}
        last = ""
        while len(found) < (limit if campaign is None else 1):
            query: Document = {"campaign": {"$gt": last}, "outgoing.not_before": {"$lt": before}}
            if campaign is not None:
                query["campaign"] = campaign
            order = [("campaign", 1), ("outgoing.not_before", 1)]
            fields = {"_id": 0, "campaign": 1, "outgoing.not_before": 1}
            raw = self._all.find_one(query, fields, sort=order, hint="outgoing")
            if raw is None:
                break
            last = str(raw["campaign"])
            found[last] = raw["outgoing"]["not_before"]
        return found

    def settle_and_mark(self, ends: Sequence[End], enrolments: Sequence[Versioned], token: str) -> set[str]:
        """Settle attempted deliveries and then mark queued ones with `token`, in one ordered write.

        Return the ids of the enrolments that are now durably `attempting`: those that still had the version that was
        read. An end is written only if its token is still set. If fewer documents matched than requested, the token is
        read back. Index: `_id`.
        """
        writes = [*map(_ended, ends), *_marked(enrolments, token)]
        if not writes:
            return set()
        matched = write(self._all, writes, ordered=True).matched_count
        ids = {enrolment.id for enrolment in enrolments}
        if not ids or matched == len(ids) + sum(len(end.ids) for end in ends):
            return ids
        return {raw["_id"] for raw in self._all.find({"_id": {"$in": list(ids)}, "outgoing.token": token}, {"_id": 1})}

    def settle(self, ends: Sequence[End]) -> int:
        """Settle attempted deliveries; return how many still had the given token. Index: `_id`."""
        return write(self._all, [_ended(end) for end in ends]).matched_count if ends else 0

    def skip(self, unsent: Sequence[Unsent]) -> int:
        """Settle queued deliveries as skipped or failed without a send, at the version that was read. Index: `_id`."""
        writes = [
            UpdateMany(
                {"_id": enrolment.id, "version": enrolment.version, "outgoing.state": "queued"},
                _settled(end, completion),
            )
            for enrolment, end, completion in unsent
        ]
        return write(self._all, writes).matched_count if writes else 0

    def hold(self, enrolments: Sequence[Versioned], after: timedelta) -> int:
        """Delay queued deliveries by `after` (system time), at the version that was read; return how many.

        This does not count as an attempt. Index: `_id`.
        """
        held = [
            {
                "$set": {
                    "outgoing.held": {"$add": [{"$ifNull": ["$outgoing.held", 0]}, 1]},
                    "outgoing.retry_at": {"$add": ["$$NOW", millis(after)]},
                    "version": {"$add": ["$version", 1]},
                }
            }
        ]
        writes = [UpdateMany(query, held) for query in _queued(enrolments)]
        return write(self._all, writes).matched_count if writes else 0

    def replay_failed(self, prefix: str, message: str | None, now: Instant) -> int:
        """Queue failed deliveries again, under the same key; return how many.

        The enrolment must have no delivery in progress. It must be active, or have ended as `completed` or `failed`: a
        user who left for another reason gets no more messages. The failed entry is removed from `settled`, because a
        message appears there once. `prefix` is `w/c/`. Index: `_id` range of the campaign.
        """
        match: Document = {"state": "failed"} | ({"message": message} if message else {})
        query = {
            "_id": {"$gte": prefix, "$lt": prefix[:-1] + "0"},
            "reason": {"$in": [None, *REPLAYED]},
            "outgoing": {"$exists": False},
            "settled": {"$elemMatch": match},
        }
        fields = {"version": 1, "settled": 1}
        documents = iter(self._all.find(query, fields, hint="_id_", batch_size=REPLAYED_AT_ONCE))
        count = 0
        while some := list(islice(documents, REPLAYED_AT_ONCE)):
            writes: list[UpdateOne] = []
            for raw in some:
                failed = next(s for s in raw["settled"] if s["state"] == "failed" and message in (None, s["message"]))
                outgoing = {
                    "message": failed["message"],
                    "state": "queued",
                    "chosen_at": now,
                    "not_before": now,
                    "attempts": 0,
                }
                update = {
                    "$pull": {"settled": {"message": failed["message"]}},
                    "$set": {"outgoing": outgoing},
                    "$unset": {"idle_since": ""},
                    "$inc": {"version": 1},
                }
                writes.append(UpdateOne({"_id": raw["_id"], "version": raw["version"]}, update))
            count += write(self._all, writes).matched_count
        return count


def _read(raw: Document) -> Delivery:
    out = raw["outgoing"]
    attempts, chosen_by = out.get("attempts", 0), out.get("slice")
    token, held = out.get("token"), out.get("held", 0)
    settled = tuple(delivery["message"] for delivery in raw.get("settled", ()))
    return Delivery(
        raw["_id"],
        raw["user"],
        raw["version"],
        out["message"],
        out["chosen_at"],
        attempts,
        chosen_by,
        token,
        held,
        settled,
        "ended_at" not in raw,
    )


def _marked(enrolments: Sequence[Versioned], token: str) -> list[UpdateMany]:
    """Build the writes that mark. They touch no indexed path; otherwise a mark would cost half as much again."""
    mark: Document = {"$set": {"outgoing.state": "attempting", "outgoing.token": token}, "$inc": {"version": 1}}
    return [UpdateMany(query, mark) for query in _queued(enrolments)]


def _queued(enrolments: Sequence[Versioned]) -> list[Document]:
    """Build the filters for those of `enrolments` that are still queued at the version that was read."""
    by_version: dict[int, list[str]] = {}
    for enrolment in enrolments:
        by_version.setdefault(enrolment.version, []).append(enrolment.id)
    return [
        {"_id": {"$in": ids}, "version": version, "outgoing.state": "queued"} for version, ids in by_version.items()
    ]


def _ended(end: End) -> UpdateMany:
    query = {"_id": {"$in": list(end.ids)}, "outgoing.token": end.token, "outgoing.state": "attempting"}
    update = _put_back(end) if isinstance(end, PutBack) else _settled(end.settled, end.completion)
    return UpdateMany(query, update)


def _put_back(end: PutBack) -> list[Document]:
    """Build the update that queues a delivery again after an attempt."""
    return [
        {
            "$set": {
                "outgoing.state": "queued",
                "outgoing.attempts": {"$add": ["$outgoing.attempts", int(end.counted)]},
                "outgoing.held": end.held,
                "outgoing.retry_at": {"$add": ["$$NOW", millis(end.after)]},
                "due_at": end.at,
                "version": {"$add": ["$version", 1]},
            }
        },
        {"$unset": "outgoing.token"},
    ]


def _settled(end: Settled, completion: Completion | None) -> Document:
    """Build the update that moves the delivery to `settled` and makes the enrolment due now.

    With `completion`, it ends the enrolment instead, exactly as the evaluation that ends it would.
    """
    at = end.at
    fields: Document = {"settled_at": at, "idle_since": at, "due_at": at}
    gone: Document = {"outgoing": ""}
    if completion is not None:
        fields |= {"state": "ended", "reason": "completed", "ended_at": at, "revision": completion.revision}
        if completion.due_at is None:
            del fields["due_at"]
            gone["due_at"] = ""
        else:
            fields["due_at"] = completion.due_at
    return {"$push": {"settled": settled_document(end)}, "$set": fields, "$unset": gone, "$inc": {"version": 1}}


NAMED: Final[Mapping[str, str]] = {
    "deliveries.overdue": "outgoing",
    "deliveries.outgoing": "_id_ or outgoing",
    "deliveries.first_campaign": "outgoing",
    "deliveries.has_outgoing": "outgoing",
    "deliveries.replay_failed": "_id_",
}
"""The named queries and the index each relies on; where two are named, MongoDB's planner chooses by the data."""
