"""Named leases: a holder does a job alone, and each new holder gets a higher fencing number."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from engine.clock import millis
from engine.domain.document import Document
from engine.domain.keys import HIGHEST
from engine.query_metrics import named_queries
from engine.stores.mongo.client import EPOCH, MAJORITY

_RAN_OUT: Final[Document] = {"$and": [{"$ne": [{"$type": "$until"}, "missing"]}, {"$lte": ["$until", "$$NOW"]}]}


@named_queries("leases")
class Leases:
    """Leases by name, written and compared by MongoDB's own clock."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection("leases", write_concern=MAJORITY)

    def hold(self, name: str, owner: str, lease: timedelta) -> int | None:
        """Take or renew the lease `name`; return its fencing number, or None while another holds it. Index: `_id`."""
        mine = {"$eq": ["$owner", owner]}
        free = {"$lt": [{"$ifNull": ["$until", EPOCH]}, "$$NOW"]}
        take: list[Document] = [
            {
                "$set": {
                    "number": {"$add": [{"$ifNull": ["$number", 0]}, {"$cond": [mine, 0, 1]}]},
                    "until": {"$add": ["$$NOW", millis(lease)]},
                }
            },
            {"$set": {"owner": owner}},
            {"$unset": "seen_ended"},
        ]
        query = {"_id": name, "$expr": {"$or": [mine, free]}}
        raw = self._all.find_one_and_update(query, take, return_document=ReturnDocument.AFTER)
        if raw is None and self._all.find_one({"_id": name}, {"_id": 1}) is None:
            try:
                self._all.insert_one({"_id": name})
            except DuplicateKeyError:
                return None  # another came first; it holds the lease now, or will at its next try
            raw = self._all.find_one_and_update(query, take, return_document=ReturnDocument.AFTER)
        return None if raw is None else int(raw["number"])

    def held_for(self, name: str) -> timedelta | None:
        """Return how long the lease `name` lasts; negative if it ran out, None if nobody holds it. Index: `_id`."""
        left = {"$subtract": ["$until", "$$NOW"]}
        raw = self._all.find_one({"_id": name, "until": {"$exists": True}}, {"left": left})
        return None if raw is None else timedelta(milliseconds=raw["left"])

    def living(self, prefix: str, grace: timedelta) -> list[str]:
        """Return the names that begin with `prefix` and whose holders may be alive. Index: `_id`.

        A holder may be alive while its lease lasts, and for `grace` after somebody first saw that it ran out. Nobody
        could renew a lease while MongoDB was away, and a living holder renews as soon as MongoDB is back. A lease that
        was given up has no holder.
        """
        names = {"$gte": prefix, "$lt": prefix + HIGHEST}
        unseen: Document = {"_id": names, "seen_ended": {"$exists": False}, "$expr": _RAN_OUT}
        self._all.update_many(unseen, [{"$set": {"seen_ended": "$$NOW"}}])
        may = {
            "$or": [
                {"$gt": ["$until", "$$NOW"]},
                {"$gt": [{"$ifNull": ["$seen_ended", EPOCH]}, {"$subtract": ["$$NOW", millis(grace)]}]},
            ]
        }
        return [raw["_id"] for raw in self._all.find({"_id": names, "$expr": may}, {"_id": 1})]

    def forget_ended(self, prefix: str, older_than: timedelta) -> int:
        """Delete leases under `prefix` that ended longer ago than `older_than`; return how many. Index: `_id`."""
        ended = {"$lt": [{"$ifNull": ["$until", EPOCH]}, {"$subtract": ["$$NOW", millis(older_than)]}]}
        query = {"_id": {"$gte": prefix, "$lt": prefix + HIGHEST}, "$expr": ended}
        return self._all.delete_many(query).deleted_count

    def give_up(self, name: str, owner: str) -> None:
        """Release the lease, so that another process can take it at once. Index: `_id`."""
        self._all.update_one({"_id": name, "owner": owner}, {"$unset": {"owner": "", "until": "", "seen_ended": ""}})
