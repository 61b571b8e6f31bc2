"""Re-evaluation requests: users who changed (`looks`), or ranges in which too many changed (`dirty_ranges`).

A request is `{_id: "w/h/u", names, mark, at, after, until?, token?, attempts?}`. A worker that takes one holds it under
a short lease. It is removed only if its mark is still the one that was taken, so a change in between causes another
evaluation. `after` is the campaign time to which the request is put off, 0 for most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final
from uuid import uuid4

from pymongo import ASCENDING, DeleteOne, IndexModel, UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database

from engine.clock import Instant, millis
from engine.domain.document import Document
from engine.domain.keys import cut, position_of, suffix_of_user, workspace_of
from engine.domain.looks import DirtyRange, RecheckRequest
from engine.query_metrics import named_queries
from engine.stores.mongo.bulk_writes import write
from engine.stores.mongo.client import EPOCH, MAJORITY

MOST_ATTEMPTS: Final = 3
"""Workers that may die before the request is processed as a suspect."""

RANGES: Final = 256
"""Dirty ranges of a workspace. With a million users each range has 4,000, which is some seconds of work."""

INDEXES: Final = (
    IndexModel([("until", ASCENDING), ("after", ASCENDING), ("_id", ASCENDING)], name="ready"),
    IndexModel([("token", ASCENDING)], name="token", partialFilterExpression={"token": {"$exists": True}}),
)
_ANY: Final[Document] = {"_id": {"$gt": ""}}
_FREE: Final[Document] = {"until": None}
_SUSPECT: Final[Document] = {"attempts": {"$gte": MOST_ATTEMPTS}}


@named_queries("looks")
class PendingRechecks:
    """The re-evaluation requests of all workspaces."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection("looks", write_concern=MAJORITY)
        self._ranges: Collection[Document] = database.get_collection("dirty_ranges", write_concern=MAJORITY)

    def add(self, names: Mapping[str, frozenset[str]], mark: str) -> None:
        """Request a re-evaluation of users (key -> what changed); extends requests that exist already. Index: `_id`."""
        writes = [
            UpdateOne(
                {"_id": key},
                {
                    "$addToSet": {"names": {"$each": sorted(changed)}},
                    "$set": {"mark": mark, "after": 0},
                    "$currentDate": {"at": True},
                },
                upsert=True,
            )
            for key, changed in names.items()
        ]
        if writes:
            write(self._all, writes)

    def add_ranges(self, names: Mapping[str, frozenset[str]], mark: str) -> None:
        """Request a re-evaluation of the whole ranges that contain these users (key -> what changed). Index: `_id`."""
        touched: dict[tuple[str, int], set[str]] = {}
        for key, changed in names.items():
            number = position_of(suffix_of_user(key)) * RANGES >> 32
            touched.setdefault((workspace_of(key), number), set()).update(changed)
        bounds = cut(RANGES)
        writes = [
            UpdateOne(
                {"_id": f"{workspace}/{number:02x}"},
                {
                    "$addToSet": {"names": {"$each": sorted(changed)}},
                    "$set": {"mark": mark, "workspace": workspace, "first": bounds[number][0]}
                    | {"last": bounds[number][1]},
                    "$unset": {"cursor": ""},
                },
                upsert=True,
            )
            for (workspace, number), changed in touched.items()
        ]
        if writes:
            write(self._ranges, writes)

    def take(self, limit: int, lease: timedelta, now: Instant) -> list[RecheckRequest]:
        """Take up to `limit` requests that nobody holds and whose campaign time has come, by key. Index: `ready`.

        If a worker dies, its requests become free after `lease`. They are then taken one by one, so that another death
        can be attributed to one request. After `MOST_ATTEMPTS` attempts a request is left to `suspects`.
        """
        ids = self._free({"attempts": None}, limit, now) or self._free({"attempts": {"$lt": MOST_ATTEMPTS}}, 1, now)
        if not ids:
            return []
        token = uuid4().hex
        held: Document = {"token": token, "until": {"$add": ["$$NOW", millis(lease)]}}
        tried: Document = {"attempts": {"$add": [{"$ifNull": ["$attempts", 0]}, 1]}}
        self._all.update_many({"_id": {"$in": ids}, **_FREE}, [{"$set": held | tried}])
        return [_request(raw) for raw in self._all.find({"token": token}, hint="token").sort("_id", 1)]

    def _free(self, more: Document, limit: int, now: Instant) -> list[str]:
        query = {**_FREE, "after": {"$lte": now}, **more}
        documents = self._all.find(query, {"_id": 1}, hint="ready").sort([("after", 1), ("_id", 1)]).limit(limit)
        return [raw["_id"] for raw in documents]

    def done(self, requests: Sequence[RecheckRequest]) -> int:
        """Remove finished requests, free those whose user changed meanwhile; return how many went. Index: `_id`."""
        if not requests:
            return 0
        gone = [DeleteOne({"_id": request.user, "mark": request.mark}) for request in requests]
        deleted = write(self._all, gone).deleted_count
        if deleted < len(requests):
            self._give_back(requests)
        return deleted

    def _give_back(self, requests: Iterable[RecheckRequest]) -> None:
        left = {"_id": {"$in": [request.user for request in requests]}}
        self._all.update_many(left, {"$unset": {"until": "", "token": "", "attempts": ""}})

    def put_off(self, requests: Mapping[RecheckRequest, Instant]) -> None:
        """Give requests back, to be taken at their campaign times (a newer change: at once). Index: `_id`."""
        if requests:
            writes = [
                UpdateOne({"_id": request.user, "mark": request.mark}, {"$set": {"after": after}})
                for request, after in requests.items()
            ]
            write(self._all, writes)
            self._give_back(requests)

    def rest(self, requests: Sequence[RecheckRequest], rests: timedelta) -> None:
        """Let requests rest that failed for a reason that is not theirs; this counts as no attempt. Index: `_id`."""
        until: Document = {"$set": {"until": {"$add": ["$$NOW", millis(rests)]}}}
        query = {"_id": {"$in": [request.user for request in requests]}, "until": {"$gt": EPOCH}}
        self._all.update_many(query, [until, {"$unset": ["attempts"]}])

    def expire(self) -> int:
        """Free the requests of dead workers; return how many. Index: `ready`."""
        query = {"until": {"$gt": EPOCH}, "$expr": {"$lt": ["$until", "$$NOW"]}}
        return self._all.update_many(query, {"$unset": {"until": "", "token": ""}}, hint="ready").modified_count

    def suspects(self, limit: int) -> list[RecheckRequest]:
        """Return requests whose workers died repeatedly and that nobody holds. Index: `ready`."""
        return [
            _request(raw) for raw in self._all.find({**_FREE, **_SUSPECT}, hint="ready").sort("_id", 1).limit(limit)
        ]

    def waiting(self, now: Instant) -> bool:
        """Whether a request whose time has come, or a range, is free to be taken. Index: `ready`, `_id`."""
        ready = {"$match": {**_FREE, "after": {"$lte": now}}}
        first, bare = {"$limit": 1}, {"$project": {"_id": 1}}
        ranges = {"$unionWith": {"coll": self._ranges.name, "pipeline": [{"$match": _ANY}, first, bare]}}
        return next(iter(self._all.aggregate([ready, first, bare, ranges, first], hint="ready")), None) is not None

    def any(self, now: Instant) -> bool:
        """Whether any request whose time has come, or any range, is open, held or not. Index: `ready`, `_id`."""
        for held in (None, {"$gt": EPOCH}):
            query = {"until": held, "after": {"$lte": now}}
            if self._all.find_one(query, {"_id": 1}, hint="ready") is not None:
                return True
        return self._ranges.find_one(_ANY, {"_id": 1}) is not None

    def count(self) -> int:
        """Return about how many requests exist, from the collection's metadata."""
        return self._all.estimated_document_count()

    def ranges(self, limit: int) -> list[DirtyRange]:
        """Return up to `limit` dirty ranges, by id. Index: `_id`."""
        return [
            DirtyRange(
                raw["_id"],
                raw["workspace"],
                raw["first"],
                raw["last"],
                frozenset(raw["names"]),
                raw["mark"],
                raw.get("cursor"),
            )
            for raw in self._ranges.find(_ANY).sort("_id", 1).limit(limit)
        ]

    def move(self, dirty: DirtyRange, cursor: str) -> bool:
        """Move a range's cursor, unless a change came meanwhile. Index: `_id`."""
        query = {"_id": dirty.id, "mark": dirty.mark}
        return self._ranges.update_one(query, {"$set": {"cursor": cursor}}).matched_count == 1

    def clean(self, dirty: DirtyRange) -> bool:
        """Remove a range that is done, unless a change came meanwhile. Index: `_id`."""
        return self._ranges.delete_one({"_id": dirty.id, "mark": dirty.mark}).deleted_count == 1


def _request(raw: Document) -> RecheckRequest:
    return RecheckRequest(raw["_id"], frozenset(raw["names"]), raw["mark"])


NAMED: Final[Mapping[str, str]] = {
    "looks.take": "ready",
    "looks.expire": "ready",
    "looks.suspects": "ready",
    "looks.waiting": "ready",
    "looks.any": "ready",
}
"""The named queries and the index each relies on."""
