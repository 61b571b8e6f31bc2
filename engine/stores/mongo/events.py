"""Events: each is stored once, counted from the stored events, and fetched for the users of a batch.

A document is `{_id: "w/h/u/id", user: "w/h/u", w, n: name, t: instant, p: {property: value}}`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from bson.decimal128 import Decimal128
from pymongo.database import Database

from engine.clock import Instant
from engine.domain.changes import NewEvent
from engine.domain.document import Document
from engine.domain.keys import escape, user_key, workspace_of
from engine.query_metrics import measured, named_queries
from engine.stores.mongo.bulk_writes import insert_new
from engine.stores.mongo.client import MAJORITY
from engine.stores.mongo.query_plans import aggregate_command, delete_command, explained, find_command
from engine.stores.mongo.users import keys_filter

BY_USER: Final = "user_name_time"
BY_NAME: Final = "workspace_name_time"

Event = tuple[int, Mapping[str, Any]]
"""Instant and properties, as predicates expect them."""


class Query(Protocol):
    """The part of a predicate's event query that the store needs."""

    @property
    def name(self) -> str:
        """The event's name."""

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of the properties that the query reads."""

    def mongo(self, as_of: Instant) -> Mapping[str, Any]:
        """Return the filter besides the users."""


@dataclass(frozen=True, slots=True)
class Summary:
    """All stored events of one name of one user. `sums` maps a property to the exact sum of its whole numbers."""

    count: int
    first: Instant
    last: Instant
    sums: Mapping[str, int]


def of_users(keys: Iterable[str]) -> Document:
    """Build the filter for all events of some users. Index: `user_name_time`, one seek a user."""
    return {"user": {"$in": sorted(keys)}}


def of_query(keys: Sequence[str], query: Mapping[str, Any], *, adjacent: bool) -> Document:
    """Build the filter for the events of one query for some users. Index: `user_name_time`.

    Adjacent users are read as one range (the caller drops events of users in between); other users cost one seek each.
    """
    users: Document = {"$gte": min(keys), "$lte": max(keys)} if adjacent else {"$in": sorted(keys)}
    return {"user": users, **query}


def summing(keys: Iterable[str], properties: Collection[str]) -> list[Document]:
    """Build the aggregation of count, first, last and exact sums per user and name. Index: `user_name_time`."""
    group: Document = {
        "_id": {"u": "$user", "n": "$n"},
        "count": {"$sum": 1},
        "first": {"$min": "$t"},
        "last": {"$max": "$t"},
    }
    for number, name in enumerate(sorted(properties)):
        value: Document = {"$getField": {"field": {"$literal": name}, "input": "$p"}}
        # A decimal is a scaled whole number. A value that an older catalogue stored as another type counts as missing
        # and adds 0. The sum is a decimal of 34 digits, because a plain $sum switches from whole numbers to floating
        # point beyond 64 bits.
        whole: Document = {"$cond": [{"$in": [{"$type": value}, ["int", "long"]]}, {"$toDecimal": value}, 0]}
        group[f"sum{number}"] = {"$sum": whole}
    return [{"$match": of_users(keys)}, {"$group": group}]


@named_queries("events", apart=("fetch",))
class Events:
    """The `events` collection of one database, written with majority."""

    NAME: Final = "events"
    INDEXES: Final[Sequence[Document]] = (
        {"keys": [("user", 1), ("n", 1), ("t", 1)], "name": BY_USER},
        {"keys": [("w", 1), ("n", 1), ("t", 1)], "name": BY_NAME},
    )

    def __init__(self, database: Database[Document]) -> None:
        self._events = database.get_collection(self.NAME, write_concern=MAJORITY)

    def record(self, events: Sequence[NewEvent]) -> list[bool]:
        """Store events that are not stored yet: check, then insert. Return True for each new one.

        Of duplicates the first wins. Index: `_id_`.
        """
        ids = [f"{event.user}/{escape(event.id)}" for event in events]
        with measured("events.known") as call:
            known = {document["_id"] for document in self._events.find(keys_filter(set(ids)), {"_id": 1})}
            call.documents = len(known)
        fresh: list[bool] = []
        documents: list[Document] = []
        for key, event in zip(ids, events, strict=True):
            fresh.append(key not in known)
            if key not in known:
                known.add(key)
                documents.append(event_document(key, event))
        # Another process may have stored the same event since the check.
        lost = {documents[index]["_id"] for index in insert_new(self._events, documents)}
        return [new and key not in lost for new, key in zip(fresh, ids, strict=True)]

    def summaries(self, keys: Collection[str], properties: Collection[str]) -> dict[str, dict[str, Summary]]:
        """Return summaries by user key and event name, from one aggregation; users without events are absent."""
        names = sorted(properties)
        summaries: dict[str, dict[str, Summary]] = {}
        for row in self._events.aggregate(summing(keys, names)):
            sums = {name: whole_number(row[f"sum{number}"]) for number, name in enumerate(names)}
            group = row["_id"]
            summaries.setdefault(group["u"], {})[group["n"]] = Summary(row["count"], row["first"], row["last"], sums)
        return summaries

    def fetch(
        self, keys: Sequence[str], queries: Sequence[Query], as_of: Instant, *, adjacent: bool = False
    ) -> dict[str, tuple[list[Event], ...]]:
        """Return the event facts of some users: per user key one list per query, in query order; all keys are present.

        `adjacent` promises that `keys` are (nearly) all users of their range, which is then read as one. A query's
        filter may return more events than the query means, because predicates judge each event themselves.
        """
        facts: dict[str, tuple[list[Event], ...]] = {key: tuple([] for _ in queries) for key in keys}
        if not keys:
            return facts
        for number, query in enumerate(queries):
            fields = {"_id": 0, "user": 1, "t": 1, **{f"p.{name}": 1 for name in query.properties}}
            with measured("events.fetch_adjacent" if adjacent else "events.fetch") as call:
                events = list(self._events.find(of_query(keys, query.mongo(as_of), adjacent=adjacent), fields))
                call.documents = len(events)
            for event in events:
                of_user = facts.get(event["user"])
                if of_user is not None:
                    of_user[number].append((event["t"], event.get("p", {})))
        return facts

    def of_user(self, key: str, limit: int = 100) -> list[Document]:
        """Return the events of one user by name and time, for people to read. Index: `user_name_time`."""
        return list(self._events.find({"user": key}).sort([("n", 1), ("t", 1)]).limit(limit))

    def erase(self, keys: Collection[str]) -> int:
        """Delete all events of some users; return how many. Index: `user_name_time`."""
        return self._events.delete_many(of_users(keys)).deleted_count


def whole_number(value: object) -> int:
    """Convert a sum from MongoDB: a whole number, or a decimal without a fraction."""
    return int(value.to_decimal()) if isinstance(value, Decimal128) else int(str(value))


def event_document(key: str, event: NewEvent) -> Document:
    """Build the document of one event."""
    workspace = workspace_of(event.user)
    return {"_id": key, "user": event.user, "w": workspace, "n": event.name, "t": event.at, "p": dict(event.properties)}


_USER: Final = user_key("w", "hh-1")
_WINDOW: Final = {"n": "Order Completed", "t": {"$gt": 0, "$lte": 1}}
explained(
    "events.known", "_id_", find_command("events", keys_filter([f"{_USER}/1", f"{_USER}/2"]), projection={"_id": 1})
)
explained("events.summaries", BY_USER, aggregate_command("events", summing([_USER], ["value"])))
explained("events.fetch", BY_USER, find_command("events", of_query([_USER, "w/0/a"], _WINDOW, adjacent=False)))
explained("events.fetch_adjacent", BY_USER, find_command("events", of_query([_USER, "w/0/a"], _WINDOW, adjacent=True)))
explained("events.of_user", BY_USER, find_command("events", {"user": _USER}, sort={"n": 1, "t": 1}, limit=100))
explained("events.erase", BY_USER, delete_command("events", of_users([_USER])))
