"""Named leases: whoever holds one does a job alone; each new holder gets a higher fencing number."""

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
from engine.measuring import named_queries
from engine.stores.connect import EPOCH, MAJORITY

_RAN_OUT: Final[Document] = {"$and": [{"$ne": [{"$type": "$until"}, "missing"]}, {"$lte": ["$until", "$$NOW"]}]}


@named_queries("leases")
class Leases:
    """Leases by name, written and compared by MongoDB's own clock."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection("leases", write_concern=MAJORITY)

    def hold(self, name: str, owner: str, lease: timedelta) -> int | None:
        """Take or renew the lease `name`; gives its fencing number, None while another holds it. Index: `_id`."""
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
        wanted = {"_id": name, "$expr": {"$or": [mine, free]}}
        raw = self._all.find_one_and_update(wanted, take, return_document=ReturnDocument.AFTER)
        if raw is None and self._all.find_one({"_id": name}, {"_id": 1}) is None:
            try:
                self._all.insert_one({"_id": name})
            except DuplicateKeyError:
                return None  # another came first and holds it now, or will at its next try
            raw = self._all.find_one_and_update(wanted, take, return_document=ReturnDocument.AFTER)
        return None if raw is None else int(raw["number"])

    def held_for(self, name: str) -> timedelta | None:
        """How long the lease `name` still lasts; negative when it ran out, None where nobody holds it. Index: `_id`."""
        left = {"$subtract": ["$until", "$$NOW"]}
        raw = self._all.find_one({"_id": name, "until": {"$exists": True}}, {"left": left})
        return None if raw is None else timedelta(milliseconds=raw["left"])

    def living(self, prefix: str, grace: timedelta) -> list[str]:
        """The names that begin with `prefix` and whose holders may live. Index: `_id`.

        That is while their lease lasts, and for `grace` after somebody has seen that it ran out: nobody could renew a
        lease while MongoDB was away, and whoever lives does so at once when it is back. A lease that was given up is
        nobody's.
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
        """Delete leases whose names begin with `prefix` and that ended longer ago than `older_than`. Index: `_id`."""
        ended = {"$lt": [{"$ifNull": ["$until", EPOCH]}, {"$subtract": ["$$NOW", millis(older_than)]}]}
        wanted = {"_id": {"$gte": prefix, "$lt": prefix + HIGHEST}, "$expr": ended}
        return self._all.delete_many(wanted).deleted_count

    def give_up(self, name: str, owner: str) -> None:
        """Let another take the lease at once. Index: `_id`."""
        self._all.update_one({"_id": name, "owner": owner}, {"$unset": {"owner": "", "until": "", "seen_ended": ""}})
