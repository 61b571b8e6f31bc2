"""How far the feed is: in MongoDB with the token that resumes its stream, and more often in Redis.

Key in the broker's Redis: `{database}:tidegate:feed` (text, the position; no expiry). It may be lost or old: it only
ever understates, for it is written after the work, and the higher of the two counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import redis
from pymongo.collection import Collection
from pymongo.database import Database

from engine.domain.document import Document
from engine.domain.looks import FeedState
from engine.measuring import named_queries
from engine.stores.connect import MAJORITY

FEED: Final = "users"

CALLS: Final = "feed_calls"
"""One document whose changes stand in the feed's stream."""


@named_queries("feeds")
class Feeds:
    """The state of the one feed."""

    def __init__(self, database: Database[Document], client: redis.Redis | None) -> None:
        self._all: Collection[Document] = database.get_collection("feeds", write_concern=MAJORITY)
        self._database = database
        self._client = client
        self._key = f"{database.name}:tidegate:feed"

    def read(self) -> FeedState:
        """Where it stands, as MongoDB has it. Index: `_id`."""
        raw = self._all.find_one({"_id": FEED}) or {}
        shapes, derived = (
            {one["workspace"]: one["shape"] for one in raw.get(part, ())} for part in ("shapes", "derived")
        )
        at = raw.get("position", 0), raw.get("generation", 1)
        searched = frozenset(raw.get("searched", ())) | shapes.keys()
        return FeedState(*at, raw.get("token"), raw.get("index"), shapes, derived, searched)

    def save(self, position: int, token: str) -> None:
        """Note that everything up to `position` is handled, durably; it never goes back. Index: `_id`."""
        update = {"$max": {"position": position}, "$set": {"token": token}, "$setOnInsert": {"generation": self.now()}}
        self._all.update_one({"_id": FEED}, update, upsert=True)
        self.publish(position)

    def fills(self, index: str | None, shapes: Mapping[str, str]) -> None:
        """Note the identity of the Elasticsearch index that everybody was asked to be put into. Index: `_id`.

        `shapes` gives for each workspace what its users look like there.
        """
        told = [{"workspace": name, "shape": shape} for name, shape in sorted(shapes.items())]
        self._all.update_one({"_id": FEED}, {"$set": {"index": index, "shapes": told}})

    def ask_search(self, workspace: str) -> None:
        """Note that a workspace's users are to be found by Elasticsearch, from soon on. Index: `_id`."""
        update = {"$addToSet": {"searched": workspace}, "$setOnInsert": {"generation": self.now()}}
        self._all.update_one({"_id": FEED}, update, upsert=True)

    def derives(self, shapes: Mapping[str, str]) -> None:
        """Note for each workspace with which aggregates its users were asked to be brought in line. Index: `_id`."""
        told = [{"workspace": name, "shape": shape} for name, shape in sorted(shapes.items())]
        update = {"$set": {"derived": told}, "$setOnInsert": {"generation": self.now()}}
        self._all.update_one({"_id": FEED}, update, upsert=True)

    def publish(self, position: int) -> None:
        """Tell `position` at once; lost where Redis is away."""
        if self._client is not None:
            try:
                self._client.set(self._key, position)
            except redis.RedisError:
                return

    def position(self) -> int:
        """Everything up to here is handled; may understate."""
        told = 0
        if self._client is not None:
            try:
                told = int(self._client.get(self._key) or 0)
            except redis.RedisError:
                told = 0
        return max(told, self.read().position)

    def now(self) -> int:
        """The cluster time of MongoDB: what is written from now on comes later."""
        at = self._database.command("ping")["operationTime"]
        return position_of(at.time, at.inc)

    def call(self) -> None:
        """Have the feed tell how far it is: it may be waiting for a change, and this is one. Index: `_id`."""
        self._database[CALLS].update_one({"_id": FEED}, {"$inc": {"calls": 1}}, upsert=True)

    def next_generation(self) -> int:
        """A gap: nothing that was cached before counts any more. Gives the new generation. Index: `_id`.

        The first one is the cluster time, not 1: a database that begins anew (wiped, replaced, restored without this
        document) must not come to numbers under which a cache that outlived it still holds users.
        """
        self._all.update_one({"_id": FEED}, {"$setOnInsert": {"generation": self.now()}}, upsert=True)
        self._all.update_one({"_id": FEED}, {"$inc": {"generation": 1}})
        return self.read().generation


def position_of(seconds: int, counter: int) -> int:
    """A cluster time as one number that keeps its order."""
    return seconds << 32 | counter
