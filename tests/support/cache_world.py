"""Helpers for tests of the user cache: users in MongoDB, a cache on Redis, and the rows that each returns."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import msgspec
import redis
from pymongo.database import Database

from engine.catalogue.catalogue import BUILTINS, Aggregate, Catalogue, EventType
from engine.catalogue.fields import Field, Row
from engine.catalogue.values import FieldType
from engine.domain.document import Document
from engine.domain.keys import HIGHEST, suffix_of_user, user_key
from engine.stores.mongo.users import Edit, Users
from engine.stores.user_cache.active_layouts import CacheLayouts
from engine.stores.user_cache.buckets import Rows, UserCache
from engine.stores.user_cache.connection import CacheServer, cache_client
from engine.stores.user_cache.layout import Layout
from engine.telemetry.events import emit

ORDER = "Order Completed"
CATALOGUE = Catalogue(
    "shop",
    "UTC",
    None,
    {
        **BUILTINS,
        "plan": Field("plan", FieldType.STRING, case_ignored=True),
        "age": Field("age", FieldType.INTEGER),
        "score": Field("score", FieldType.NUMBER),
        "tags": Field("tags", FieldType.STRING, many=True),
        "class": Field("class", FieldType.STRING),
        "orders": Field("orders", FieldType.INTEGER, kind="aggregate"),
    },
    {ORDER: EventType(ORDER, {}), "Opened": EventType("Opened", {})},
    {"orders": Aggregate("orders", ORDER, "count")},
)


class CacheWorld:
    """Users in a database, and the user cache at `url` with the adopted layout."""

    def __init__(
        self,
        database: Database[Document],
        url: str,
        catalogue: Catalogue = CATALOGUE,
        pause: timedelta = timedelta(seconds=10),
    ) -> None:
        self.database, self.catalogue = database, catalogue
        self.users = Users(database)
        self.redis = redis.Redis.from_url(url, socket_timeout=10)
        self.layouts = CacheLayouts(database, self.users, "t:")
        self.cache = UserCache(CacheServer(cache_client(url), emit), self.users, emit, pause)

    def close(self) -> None:
        self.cache.close()
        self.redis.close()

    def adopt(self, generation: int = 1) -> Layout:
        return self.layouts.adopt(self.catalogue, generation)

    def add(self, *ids: str, **fields: object) -> list[str]:
        """Create or change users and return their keys."""
        keys = [user_key("shop", name) for name in ids]
        values = {f"a.{name}" if name not in BUILTINS else name: value for name, value in fields.items()}
        edit = Edit({"deleted": None, **values}, list(fields))
        self.users.rewrite(keys, lambda some, documents: dict.fromkeys(some, edit))
        return keys

    def fill(self, count: int, seed: int = 1) -> None:
        """Insert `count` varied users directly, with revisions, tombstones, and missing and wrong values."""
        rnd = random.Random(seed)
        self.database.users.insert_many([random_user(rnd, f"u{n}") for n in range(count)])

    def documents(self, keys: Iterable[str]) -> list[Document]:
        return self.users.read_keys(keys)

    def refresh(self, layout: Layout, *keys: str) -> Any:
        return self.cache.refresh(layout, self.documents(keys))

    def stored(self, first: str = "0", until: str = HIGHEST) -> dict[str, Document]:
        """Return a range's users from MongoDB, as the catalogue reads them."""
        documents = self.users.read_range("shop", first, until, 1_000_000)
        return {raw["_id"]: slots_of(self.catalogue, self.catalogue.row(raw)) for raw in documents}

    def read(self, layout: Layout, first: str = "0", until: str = HIGHEST, limit: int = 1_000) -> dict[str, Document]:
        """Return a range's users from the cache, read batch by batch."""
        found: dict[str, Document] = {}
        for rows in self.batches(layout, first, until, limit):
            new = {row.key: slots_of(self.catalogue, row) for row in rows.rows}
            assert len(new) == len(rows.rows)
            assert not set(new) & set(found)
            found |= new
        return found

    def batches(self, layout: Layout, first: str = "0", until: str = HIGHEST, limit: int = 1_000) -> list[Rows]:
        batches = []
        while first < until:
            batches.append(self.cache.read(layout, first, until, limit))
            assert all(first <= suffix_of_user(row.key) < batches[-1].until for row in batches[-1].rows)
            assert first < batches[-1].until <= until
            first = batches[-1].until
        return batches

    def buckets(self) -> list[bytes]:
        return sorted(self.redis.keys("t:u:*"))


def slots_of(catalogue: Catalogue, row: Row) -> Document:
    """Return a row as slot name to (value, type), independent of the order of its fields."""
    slots = ("key", "rev", "deleted", "lists", "e", *(field.slot for field in catalogue.fields.values()))
    raw = msgspec.structs.asdict(row)  # type: ignore[arg-type]
    assert set(raw) == set(slots)
    return {name: (raw[name], type(raw[name])) for name in slots}


def random_user(rnd: random.Random, user_id: str) -> Document:
    base = {"_id": user_key("shop", user_id), "w": "shop", "u": user_id, "rev": rnd.randrange(1, 1 << 45)}
    if rnd.random() < 0.05:
        return {**base, "changed": ["deleted"], "deleted": True}
    wrong: list[Any] = [None, "x", 1.5, True, ["a", 1], {"n": 1}, float("nan"), -(2**63)]
    whole: Mapping[str, Any] = {
        "plan": "Gold",
        "age": rnd.randrange(-(2**63), 2**63),
        "score": rnd.random(),
        "tags": rnd.choices(["a", "b", 3], k=rnd.randrange(4)),
        "class": "é\U0001f600\0",
    }
    attributes = {
        name: rnd.choice(wrong) if rnd.random() < 0.2 else value for name, value in whole.items() if rnd.random() < 0.8
    }
    summary = {"n": rnd.randrange(3), "first": 5, "last": 2**50}
    return {
        **base,
        "changed": [],
        "email": f"{user_id}@x.example",
        "created_at": rnd.randrange(2**41),
        "unsubscribed": rnd.random() < 0.1,
        "lists": rnd.sample(["vip", "new", "old"], rnd.randrange(4)),
        "a": attributes,
        "k": CATALOGUE.folded(attributes),
        "g": {"orders": 3} if rnd.random() < 0.5 else {},
        "e": {name: summary for name in (ORDER, "Opened") if rnd.random() < 0.5},
    }
