"""The user cache layout in force for each workspace: one small document, changed by compare-and-set.

    {_id: workspace, version, current?: {depth, fields, events, shape, number}, wanted?: {fields, events}, retired?}

`number` rises whenever `current` changes; `retired` is the last number of a workspace that no longer has a file.

Only the feed puts a layout into force (`adopt`), and from then on it refreshes that layout. If readers chose a layout
themselves, they would fill it before anybody refreshes it. Readers request fields and events with `want`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from pymongo.collection import Collection as MongoCollection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from engine.catalogue.catalogue import Catalogue
from engine.domain.document import Document
from engine.query_metrics import named_queries
from engine.stores.mongo.client import MAJORITY
from engine.stores.mongo.users import Contended, Users
from engine.stores.user_cache.layout import (
    HELD_BY_DEFAULT,
    USERS_PER_BUCKET,
    Held,
    Layout,
    depth_for,
    extended,
    held_at_first,
    in_front,
    reach,
    shape_of,
)

NOTHING: Final = Held((), frozenset())

_STRAY: Final = 4
"""The bucket depth changes once buckets hold four times more or fewer users than they should. Every change empties the
cache."""

_FAR: Final = 2
"""Fields are reordered if readers must decode more than twice as many fields as campaigns name."""

_TRIES: Final = 100
"""Rounds against concurrent requests. In each round one of them succeeds, so this limit is never reached."""


@named_queries("cache_layouts")
class CacheLayouts:
    """The layouts of one installation's workspaces; `prefix` begins its Redis keys."""

    def __init__(self, database: Database[Document], users: Users, prefix: str) -> None:
        self._all: MongoCollection[Document] = database.get_collection("cache_layouts", write_concern=MAJORITY)
        self._users = users
        self._prefix = prefix
        self._made: dict[str, Layout] = {}

    def layout(self, catalogue: Catalogue, generation: int) -> Layout | None:
        """Return the layout in force. Index: `_id_`.

        None if the feed has put none into force, or only one for another version of the catalogue; the caller then
        reads MongoDB.
        """
        raw = self._all.find_one({"_id": catalogue.workspace}) or {}
        current = raw.get("current")
        if current is None:
            return None
        layout = self._layout(catalogue, generation, current)
        return layout if layout.shape == current["shape"] else None

    def want(self, workspace: str, fields: Collection[str], events: Collection[str]) -> bool:
        """Request that the cache hold more; return False if the layout in force holds it already. Index: `_id_`.

        The request takes effect when the feed adopts it.
        """
        raw = self._all.find_one({"_id": workspace}) or {}
        if "current" in raw and _held(raw["current"]).holds(fields, events):
            return False
        if "wanted" in raw and _held(raw["wanted"]).holds(fields, events):
            return True
        more = {"wanted.fields": {"$each": sorted(fields)}, "wanted.events": {"$each": sorted(events)}}
        self._all.update_one({"_id": workspace}, {"$addToSet": more, "$inc": {"version": 1}}, upsert=True)
        return True

    def pending(self, workspaces: Iterable[str]) -> set[str]:
        """Return the workspaces with requests that are not yet in force. Index: `_id_`."""
        documents = self._all.find({"_id": {"$in": sorted(workspaces)}, "wanted": {"$exists": True}}, {"_id": 1})
        return {raw["_id"] for raw in documents}

    def adopt(self, catalogue: Catalogue, generation: int, named: Held = NOTHING) -> Layout:
        """Put a layout into force that meets all requests and fits catalogue and number of users. Index: `_id_`.

        Only the feed may call this; it refreshes this layout from now on. `named` is what campaigns name; the cache of
        a workspace with many fields holds at least that. Raises `Contended`.
        """
        for _ in range(_TRIES):
            raw = self._all.find_one({"_id": catalogue.workspace})
            target = self._target(catalogue, raw or {}, named)
            settled = raw is not None and raw.get("current") == target and "wanted" not in raw
            if settled or self._put(catalogue.workspace, raw, target):
                return self._layout(catalogue, generation, target)
        raise Contended

    def retire_others(self, workspaces: Iterable[str]) -> int:
        """Put the layouts of all other workspaces out of force; return how many. Index: `_id`.

        Only the feed may call this. A workspace that returns gets a layout with a higher number, because nobody
        refreshed the old one in between.
        """
        others: Document = {"_id": {"$gt": "", "$nin": sorted(workspaces)}, "current": {"$exists": True}}
        retired: list[Document] = [
            {"$set": {"retired": "$current.number", "version": {"$add": ["$version", 1]}}},
            {"$unset": ["current"]},
        ]
        return self._all.update_many(others, retired).modified_count

    def _target(self, catalogue: Catalogue, raw: Document, named: Held) -> Document:
        current = raw.get("current", {})
        number = current.get("number", raw.get("retired", 0))
        held = held_at_first(catalogue, named) if not current else _held(current)
        for part in (_held(raw.get("wanted", {})), named):
            held = extended(held, part.fields, part.events)
        if len(catalogue.fields) <= HELD_BY_DEFAULT:
            held = extended(held, catalogue.fields, catalogue.events)
        held = Held(
            tuple(name for name in held.fields if name in catalogue.fields), held.events.intersection(catalogue.events)
        )
        fields = [name for name in named.fields if name in catalogue.fields]
        if reach(held, fields) > _FAR * max(len(fields), 4):
            held = in_front(held, fields)
        users = self._users.estimate(catalogue.workspace)
        depth = depth_for(users)
        if current and 1 / _STRAY <= users / (USERS_PER_BUCKET << current["depth"]) <= _STRAY:
            depth = current["depth"]
        target = {
            "depth": depth,
            "fields": list(held.fields),
            "events": sorted(held.events),
            "shape": shape_of(catalogue, held),
            "number": number,
        }
        return target if target == current else {**target, "number": number + 1}

    def _put(self, workspace: str, raw: Document | None, target: Document) -> bool:
        if raw is None:
            try:
                self._all.insert_one({"_id": workspace, "version": 1, "current": target})
            except DuplicateKeyError:
                return False
            return True
        change = {"$set": {"current": target}, "$unset": {"wanted": ""}, "$inc": {"version": 1}}
        return self._all.update_one({"_id": workspace, "version": raw["version"]}, change).matched_count == 1

    def _layout(self, catalogue: Catalogue, generation: int, current: Document) -> Layout:
        """Return the layout that `current` describes; reuse the previous object if nothing has changed."""
        key = (catalogue, generation, current["number"], _held(current))
        made = self._made.get(catalogue.workspace)
        if made is None or (made.catalogue, made.generation, made.number, made.held) != key:
            made = Layout(catalogue, _held(current), current["depth"], current["number"], generation, self._prefix)
            self._made[catalogue.workspace] = made
        return made


def _held(raw: Document) -> Held:
    return Held(tuple(raw.get("fields", ())), frozenset(raw.get("events", ())))
