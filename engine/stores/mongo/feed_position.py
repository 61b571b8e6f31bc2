"""The progress of the feed: stored in MongoDB with the token that resumes its stream, and more often in Redis.

Key in the broker's Redis: `{database}:tidegate:feed` (text, the position; no expiry). It may be lost or out of date. It
can only be too low, because it is written after the work, and the higher of the two values counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import redis
from pymongo.collection import Collection
from pymongo.database import Database

from engine.domain.document import Document
from engine.domain.looks import FeedState
from engine.query_metrics import named_queries
from engine.stores.mongo.client import MAJORITY

FEED: Final = "users"

CALLS: Final = "feed_calls"
"""One document whose changes appear in the feed's stream."""


@named_queries("feeds")
class FeedPosition:
    """The state of the one feed."""

    def __init__(self, database: Database[Document], client: redis.Redis | None) -> None:
        self._all: Collection[Document] = database.get_collection("feeds", write_concern=MAJORITY)
        self._database = database
        self._client = client
        self._key = f"{database.name}:tidegate:feed"

    def read(self) -> FeedState:
        """Return the feed's state from MongoDB. Index: `_id`."""
        raw = self._all.find_one({"_id": FEED}) or {}
        shapes, derived = (
            {entry["workspace"]: entry["shape"] for entry in raw.get(part, ())} for part in ("shapes", "derived")
        )
        at = raw.get("position", 0), raw.get("generation", 1)
        searched = frozenset(raw.get("searched", ())) | shapes.keys()
        return FeedState(*at, raw.get("token"), raw.get("index"), shapes, derived, searched)

    def save(self, position: int, token: str) -> None:
        """Record durably that everything up to `position` is handled; the position never goes back. Index: `_id`."""
        update = {"$max": {"position": position}, "$set": {"token": token}, "$setOnInsert": {"generation": self.now()}}
        self._all.update_one({"_id": FEED}, update, upsert=True)
        self.publish(position)

    def fills(self, index: str | None, shapes: Mapping[str, str]) -> None:
        """Record the identity of the Elasticsearch index that all users were requested to be put into. Index: `_id`.

        `shapes` gives for each workspace the shape of its users in that index.
        """
        entries = [{"workspace": name, "shape": shape} for name, shape in sorted(shapes.items())]
        self._all.update_one({"_id": FEED}, {"$set": {"index": index, "shapes": entries}})

    def ask_search(self, workspace: str) -> None:
        """Record that Elasticsearch must soon be able to find the users of a workspace. Index: `_id`."""
        update = {"$addToSet": {"searched": workspace}, "$setOnInsert": {"generation": self.now()}}
        self._all.update_one({"_id": FEED}, update, upsert=True)

    def derives(self, shapes: Mapping[str, str]) -> None:
        """Record for each workspace the aggregates for which an update of its users was requested. Index: `_id`."""
        entries = [{"workspace": name, "shape": shape} for name, shape in sorted(shapes.items())]
        update = {"$set": {"derived": entries}, "$setOnInsert": {"generation": self.now()}}
        self._all.update_one({"_id": FEED}, update, upsert=True)

    def publish(self, position: int) -> None:
        """Publish `position` in Redis at once; do nothing if Redis is away."""
        if self._client is not None:
            try:
                self._client.set(self._key, position)
            except redis.RedisError:
                return

    def position(self) -> int:
        """Return the position up to which everything is handled; the value may be too low."""
        position = 0
        if self._client is not None:
            try:
                position = int(self._client.get(self._key) or 0)
            except redis.RedisError:
                position = 0
        return max(position, self.read().position)

    def now(self) -> int:
        """Return MongoDB's cluster time; every later write has a higher one."""
        at = self._database.command("ping")["operationTime"]
        return position_of(at.time, at.inc)

    def call(self) -> None:
        """Make the feed report its position: it may be waiting for a change, and this is one. Index: `_id`."""
        self._database[CALLS].update_one({"_id": FEED}, {"$inc": {"calls": 1}}, upsert=True)

    def next_generation(self) -> int:
        """Record a gap, which invalidates everything cached before; return the new generation. Index: `_id`.

        The first generation is the cluster time, not 1. A database that begins anew (wiped, replaced, restored without
        this document) must not reuse numbers under which a surviving cache still holds users.
        """
        self._all.update_one({"_id": FEED}, {"$setOnInsert": {"generation": self.now()}}, upsert=True)
        self._all.update_one({"_id": FEED}, {"$inc": {"generation": 1}})
        return self.read().generation


def position_of(seconds: int, counter: int) -> int:
    """Encode a cluster time as one number that keeps its order."""
    return seconds << 32 | counter
