"""Requests to index users into Elasticsearch, kept until they are done, because Redis may lose the message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

from pymongo import ASCENDING, IndexModel
from pymongo.collection import Collection
from pymongo.database import Database

from engine.clock import millis
from engine.domain.document import Document
from engine.query_metrics import named_queries
from engine.stores.mongo.client import MAJORITY

KEYS_AT_ONCE: Final = 1_000
"""Users in one request: a bulk of about a megabyte."""

_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)

INDEXES: Final = (IndexModel([("asked_at", ASCENDING)], name="asked"),)


@dataclass(frozen=True, slots=True)
class IndexRequest:
    """Users to be indexed: by key, or all of a workspace with a suffix in [first, until).

    `derive`: update these users' aggregates to the workspace file instead. `indexed`: the users are in the index, and
    searches must be able to see them.
    """

    keys: Sequence[str] = ()
    workspace: str = ""
    first: str = ""
    until: str = ""
    derive: bool = False
    indexed: bool = False


@named_queries("index_requests")
class IndexRequests:
    """Requests; each is deleted when it is done. Executing one twice is harmless."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection("index_requests", write_concern=MAJORITY)

    def add(self, requests: Sequence[IndexRequest]) -> list[str]:
        """Store requests, those by key cut into pieces; return their ids. Only `unheard` uses their time, as a hint."""
        documents: list[Document] = []
        for request in requests:
            if request.workspace:
                query = {"workspace": request.workspace, "first": request.first, "until": request.until}
                documents.append(query | ({"derive": True} if request.derive else {}))
            starts = range(0, len(request.keys), KEYS_AT_ONCE)
            documents += [{"keys": list(request.keys[start : start + KEYS_AT_ONCE])} for start in starts]
        for document in documents:
            document |= {"_id": uuid4().hex, "asked_at": datetime.now(UTC)}
        if documents:
            self._all.insert_many(documents, ordered=False)
        return [document["_id"] for document in documents]

    def get(self, request_id: str) -> IndexRequest | None:
        """Return one request that is not done yet. Index: `_id`."""
        raw = self._all.find_one({"_id": request_id})
        if raw is None:
            return None
        bounds = raw.get("first", ""), raw.get("until", "")
        derive, indexed = raw.get("derive", False), raw.get("indexed", False)
        return IndexRequest(raw.get("keys", ()), raw.get("workspace", ""), *bounds, derive, indexed)

    def done(self, ids: Sequence[str]) -> None:
        """Delete requests that are done or that others include. Index: `_id`."""
        self._all.delete_many({"_id": {"$in": list(ids)}})

    def of_users(self, workspace: str) -> list[str]:
        """Return the ids of requests that name users of a workspace. Index: `_id`."""
        named = {"_id": {"$gt": ""}, "keys.0": {"$gte": f"{workspace}/", "$lt": f"{workspace}0"}}
        return [raw["_id"] for raw in self._all.find(named, {"_id": 1}, hint="_id_")]

    def indexed(self, request_id: str) -> list[str]:
        """Record that the users of a request are indexed; return all such ids once no other request is waiting.

        If two callers record this at once, the later one finds both. Index: `_id`.
        """
        self._all.update_one({"_id": request_id}, {"$set": {"indexed": True}})
        query = {"_id": {"$gt": ""}, "derive": {"$exists": False}}
        if self._all.find_one(query | {"indexed": {"$exists": False}}, {"_id": 1}, hint="_id_") is not None:
            return []
        return [raw["_id"] for raw in self._all.find(query | {"indexed": True}, {"_id": 1}, hint="_id_")]

    def put_off(self, request_id: str) -> None:
        """Make a request be enqueued again when its turn comes. Index: `_id`."""
        self._all.update_one({"_id": request_id}, {"$set": {"asked_at": _NEVER}})

    def deriving(self, workspace: str) -> int:
        """Return how many ranges of a workspace are still to be derived. Index: `_id`."""
        query = {"_id": {"$gt": ""}, "derive": True, "workspace": workspace}
        return len(list(self._all.find(query, {"_id": 1}, hint="_id_")))

    def any(self) -> bool:
        """Whether any request is still open. Index: `_id`."""
        return self._all.find_one({"_id": {"$gt": ""}}, {"_id": 1}) is not None

    def unheard(self, after: timedelta, limit: int) -> list[str]:
        """Return ids of up to `limit` requests older than `after`, and reset their time to now. Index: `asked`."""
        old = {"$lt": ["$asked_at", {"$subtract": ["$$NOW", millis(after)]}]}
        documents = self._all.find({"$expr": old}, {"_id": 1}, hint="asked").sort("asked_at", 1).limit(limit)
        ids = [raw["_id"] for raw in documents]
        if ids:
            self._all.update_many({"_id": {"$in": ids}}, [{"$set": {"asked_at": "$$NOW"}}])
        return ids


NAMED: Final[Mapping[str, str]] = {
    "index_requests.get": "_id_",
    "index_requests.of_users": "_id_",
    "index_requests.indexed": "_id_",
    "index_requests.unheard": "asked",
}
"""The named queries and the index each relies on."""
