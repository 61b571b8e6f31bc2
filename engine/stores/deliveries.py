"""Deliveries inside the enrolments: what is on its way, marked, settled. Compare-and-sets that name state and token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from pymongo import UpdateMany
from pymongo.collection import Collection
from pymongo.database import Database

from engine.clock import Instant, millis
from engine.domain.delivery import Queued, Versioned
from engine.domain.enrolment import Enrolment, Settled
from engine.domain.keys import campaign_of
from engine.domain.lifecycle import DeliveryState
from engine.domain.settling import Settling
from engine.measuring import named_queries
from engine.stores.connect import MAJORITY
from engine.stores.documents import Document, read_enrolment, settled_document

REPLAYED: Final = ("completed", "failed")
"""How a stay may have ended whose failed deliveries are sent after all, when a person asks for it."""


BY_ID: Final = "_id_"
"""Told to each write that names its ids: else MongoDB tries `outgoing` too, a fifth of what settling costs."""

_AS_QUEUED: Final = {
    "user": 1,
    "version": 1,
    "outgoing.message": 1,
    "outgoing.chosen_at": 1,
    "outgoing.attempts": 1,
    "outgoing.slice": 1,
}


@named_queries("deliveries")
class Deliveries:
    """Reads and writes of the deliver step, on the collection of the enrolments."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection("enrolments", write_concern=MAJORITY)

    def queued(self, prefix: str, after: str, until: str, now: Instant, limit: int) -> list[Queued]:
        """Up to `limit` deliveries to send at campaign time `now`, of stays with ids in (`after`, `until`), by id.

        One whose retry lies ahead in system time is left out. Index: where many are queued the `_id` range of the
        campaign, where few are `outgoing`; MongoDB's planner tries both.
        """
        wanted = {
            "_id": {"$gt": max(after, prefix), "$lt": until},
            "campaign": campaign_of(prefix),
            "outgoing.state": "queued",
            "outgoing.not_before": {"$lte": now},
            # The expression is dear and few are retries.
            "$or": [{"outgoing.retry_at": {"$exists": False}}, {"$expr": {"$lte": ["$outgoing.retry_at", "$$NOW"]}}],
        }
        found = self._all.find(wanted, _AS_QUEUED, batch_size=limit).sort("_id", 1).limit(limit)
        return [_read_queued(raw) for raw in found]

    def attempting(self, prefix: str, first: str, until: str, limit: int) -> list[Enrolment]:
        """Up to `limit` stays with a delivery marked `attempting`, ids in [`first`, `until`), by id. Index: `outgoing`.

        Few are at any time: as many as are being sent, and those of senders that died.
        """
        wanted = {
            "_id": {"$gte": max(first, prefix), "$lt": until},
            "campaign": campaign_of(prefix),
            "outgoing.state": "attempting",
        }
        return [read_enrolment(raw) for raw in self._all.find(wanted, hint="outgoing").sort("_id", 1).limit(limit)]

    def first_campaign(self, state: DeliveryState, now: Instant, leave_out: Sequence[str]) -> str | None:
        """The uid of a campaign with a delivery in `state`, other than `leave_out`. Index: `outgoing`.

        For `queued` only what may be sent at campaign time `now` (and, of retries, at system time) counts.
        """
        wanted: Document = {"outgoing.state": state.value, "campaign": {"$nin": list(leave_out)}}
        if state is DeliveryState.QUEUED:
            wanted["outgoing.not_before"] = {"$lte": now}
            wanted["$expr"] = {"$lte": [{"$ifNull": ["$outgoing.retry_at", "$$NOW"]}, "$$NOW"]}
        found = self._all.find_one(wanted, {"campaign": 1}, hint="outgoing")
        return None if found is None else str(found["campaign"])

    def has_outgoing(self, campaigns: Sequence[str] | None, now: Instant | None) -> bool:
        """Whether a delivery is on its way in `campaigns` (None: in any); index `outgoing`.

        With `now`, deliveries put off beyond that campaign time do not count.
        """
        wanted: Document = {"outgoing.state": {"$in": ["queued", "attempting"]}}
        if campaigns is not None:
            wanted["campaign"] = {"$in": list(campaigns)}
        if now is not None:
            wanted["$or"] = [{"outgoing.state": "attempting"}, {"outgoing.not_before": {"$lte": now}}]
        return self._all.find_one(wanted, {"_id": 1}, hint="outgoing") is not None

    def long_attempting(self, limit: timedelta) -> dict[str, int]:
        """For each campaign (uid) how many deliveries are `attempting` for longer than `limit`. Index: `outgoing`."""
        old = {"$lt": ["$outgoing.since", {"$subtract": ["$$NOW", millis(limit)]}]}
        found = self._all.aggregate(
            [
                {"$match": {"outgoing.state": "attempting", "$expr": old}},
                {"$group": {"_id": "$campaign", "n": {"$sum": 1}}},
            ],
            hint="outgoing",
        )
        return {raw["_id"]: raw["n"] for raw in found}

    def mark(self, stays: Sequence[Versioned], token: str) -> set[str]:
        """Mark queued deliveries as `attempting` with `token`, durably; gives the ids marked. Index: `_id`.

        Each stay must still be at the version that was read. Where fewer matched than asked, the token is read back.
        """
        by_version: dict[int, list[str]] = {}
        for stay in stays:
            by_version.setdefault(stay.version, []).append(stay.id)
        mark: Document = {
            "$set": {"outgoing.state": "attempting", "outgoing.token": token},
            "$currentDate": {"outgoing.since": True},
            "$inc": {"version": 1, "outgoing.attempts": 1},
        }
        writes = [
            UpdateMany({"_id": {"$in": ids}, "version": version, "outgoing.state": "queued"}, mark, hint=BY_ID)
            for version, ids in by_version.items()
        ]
        matched = self._all.bulk_write(writes, ordered=False).matched_count if writes else 0
        ids = {stay.id for stay in stays}
        if matched == len(ids):
            return ids
        return {raw["_id"] for raw in self._all.find({"_id": {"$in": list(ids)}, "outgoing.token": token}, {"_id": 1})}

    def settle(self, settlings: Sequence[Settling]) -> int:
        """Settle marked deliveries; gives how many still had the token that was named. Index: `_id`."""
        writes = [
            UpdateMany(
                {"_id": {"$in": list(one.ids)}, "outgoing.token": one.token, "outgoing.state": "attempting"},
                _settled(one.settled),
                hint=BY_ID,
            )
            for one in settlings
        ]
        return self._all.bulk_write(writes, ordered=False).matched_count if writes else 0

    def skip(self, stays: Sequence[tuple[Versioned, Settled]]) -> int:
        """Settle queued deliveries as skipped or failed without a send, at the version that was read. Index: `_id`."""
        writes = [
            UpdateMany({"_id": stay.id, "version": stay.version, "outgoing.state": "queued"}, _settled(end), hint=BY_ID)
            for stay, end in stays
        ]
        return self._all.bulk_write(writes, ordered=False).matched_count if writes else 0

    def put_back(self, ids: Sequence[str], token: str, after: timedelta, now: Instant) -> int:
        """`attempting` back to `queued`, to be tried after `after` (system time of MongoDB's clock). Index: `_id`.

        The stay is looked at at campaign time `now`: a look while it was attempting had to wait, whatever had changed.
        """
        if not ids:
            return 0
        retry_at = {"$add": ["$$NOW", millis(after)]}
        back: list[Document] = [
            {
                "$set": {
                    "outgoing.state": "queued",
                    "outgoing.retry_at": retry_at,
                    "due_at": now,
                    "version": {"$add": ["$version", 1]},
                }
            },
            {"$unset": ["outgoing.token", "outgoing.since"]},
        ]
        wanted = {"_id": {"$in": list(ids)}, "outgoing.token": token, "outgoing.state": "attempting"}
        return self._all.update_many(wanted, back, hint=BY_ID).matched_count

    def replay_failed(self, prefix: str, message: str | None, now: Instant) -> int:
        """Failed deliveries with nothing on its way in their stay are queued again, under the same key; gives how many.

        Of stays that are active, or that ended as `completed` or `failed`: whoever left for another reason is not
        written to any more. The failed entry leaves `settled`, for a message stands there once. `prefix` is `w/c/`.
        Index: `_id` range of the campaign.
        """
        count = 0
        match: Document = {"state": "failed"} | ({"message": message} if message else {})
        wanted = {
            "_id": {"$gte": prefix, "$lt": prefix[:-1] + "0"},
            "reason": {"$in": [None, *REPLAYED]},
            "outgoing": {"$exists": False},
            "settled": {"$elemMatch": match},
        }
        for raw in self._all.find(wanted, hint="_id_"):
            failed = next(s for s in raw["settled"] if s["state"] == "failed" and message in (None, s["message"]))
            outgoing = {
                "message": failed["message"],
                "state": "queued",
                "chosen_at": now,
                "not_before": now,
                "attempts": 0,
            }
            done = self._all.update_one(
                {"_id": raw["_id"], "version": raw["version"]},
                {
                    "$pull": {"settled": {"message": failed["message"]}},
                    "$set": {"outgoing": outgoing},
                    "$unset": {"idle_since": ""},
                    "$inc": {"version": 1},
                },
            )
            count += done.matched_count
        return count


def _read_queued(raw: Document) -> Queued:
    out = raw["outgoing"]
    attempts, chosen_by = out.get("attempts", 0), out.get("slice")
    return Queued(raw["_id"], raw["user"], raw["version"], out["message"], out["chosen_at"], attempts, chosen_by)


def _settled(end: Settled) -> Document:
    """The update that settles: the delivery moves to `settled`, and the stay is looked at again now."""
    at = end.at
    return {
        "$push": {"settled": settled_document(end)},
        "$set": {"settled_at": at, "idle_since": at, "due_at": at},
        "$unset": {"outgoing": ""},
        "$inc": {"version": 1},
    }


NAMED: Final[Mapping[str, str]] = {
    "deliveries.queued": "_id_ or outgoing",
    "deliveries.attempting": "outgoing",
    "deliveries.first_campaign": "outgoing",
    "deliveries.has_outgoing": "outgoing",
    "deliveries.long_attempting": "outgoing",
    "deliveries.replay_failed": "_id_",
}
"""The named queries and the index each relies on; of two, the planner chooses by what it finds."""
