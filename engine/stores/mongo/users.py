"""Users: read by key range, written by one update path that raises the revision and names what changed.

A document is `{_id: "w/h/u", w, u, rev, changed, deleted?, built-in fields, a: attributes, k: folded strings, g:
aggregates, e: event summaries, lists}` (`docs/import.md`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

from pymongo import UpdateMany
from pymongo.database import Database
from pymongo.errors import AutoReconnect

from engine.clock import Instant, instant
from engine.domain.counts import Population
from engine.domain.document import Document, UserDocument
from engine.domain.keys import HASH_SPACE, hash_prefix, user_id_of, user_key, workspace_of
from engine.errors import EngineError
from engine.query_metrics import measured, named_queries
from engine.stores.mongo.bulk_writes import insert_new, write
from engine.stores.mongo.client import MAJORITY, READ_MAJORITY
from engine.stores.mongo.query_plans import explained, find_command, update_command

CREATED: Final = "created"
DELETED: Final = "deleted"
"""Entries of `changed` for a new user and for a tombstone; both concern every campaign, whichever fields it names."""

_TRIES: Final = 100
"""Rounds against other writers of the same users. In each round one of them succeeds, so nobody reaches this limit."""

_SAMPLE: Final = 4_000
"""Users counted for an estimate: about 1.6 % standard error, some milliseconds."""

_ONE_ANSWER: Final = 100_000
"""Documents of one answer: only the 16 MB of an answer limit it, so most ranges cost one command."""


class Contended(EngineError):
    """Other processes keep changing the same users; try again when they have ended."""


class Edit(NamedTuple):
    """New values for one user: document path to value, None removes. `names` lists changed catalogue names."""

    fields: Mapping[str, object]
    names: Sequence[str] = ()


Planner = Callable[[Collection[str], Mapping[str, Document]], Mapping[str, Edit]]
"""Turns requested keys and existing documents into edits; an edit for a key without a document creates a user."""


def range_filter(workspace: str, first: str, until: str) -> Document:
    """Build the filter for users with a suffix in [first, until). Index: `_id_`, a range scan."""
    return {"_id": {"$gte": f"{workspace}/{first}", "$lt": f"{workspace}/{until}"}}


def keys_filter(keys: Iterable[str]) -> Document:
    """Build the filter for users by key. Index: `_id_`, at most one seek a key.

    The keys are sorted, so that neighbours are read together.
    """
    return {"_id": {"$in": sorted(keys)}}


def deleted_filter(keys: Iterable[str]) -> Document:
    """Build the filter for tombstones by key. Index: `_id_`."""
    return {**keys_filter(keys), "deleted": True}


def unchanged_filter(key: str, rev: int) -> Document:
    """Build the filter for one user at the revision that was read. Index: `_id_`."""
    return {"_id": key, "rev": rev}


NEXT_REVISION: Final[Document] = {"$max": [{"$add": [{"$ifNull": ["$rev", 0]}, 1]}, {"$toLong": "$$NOW"}]}
"""`max(rev + 1, server milliseconds)`: it rises with every write, and above anything that an older server wrote."""


def edit_update(edit: Edit, rev: Instant) -> Document:
    """Build the update of one edit, to the revision `rev`."""
    sets: Document = {path: value for path, value in edit.fields.items() if value is not None}
    sets["rev"], sets["changed"] = rev, list(edit.names)
    if len(sets) == len(edit.fields) + 2:
        return {"$set": sets}
    return {"$set": sets, "$unset": {path: "" for path, value in edit.fields.items() if value is None}}


def tombstone_pipeline() -> list[Document]:
    """Build the update that leaves only key, revision and the deletion mark of a user."""
    kept: Document = {name: f"${name}" for name in ("_id", "w", "u")}
    return [{"$replaceWith": {**kept, "rev": NEXT_REVISION, "changed": {"$literal": [DELETED]}, "deleted": True}}]


@lru_cache(4096)
def names_of(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Return the catalogue names of document paths: `a.plan` is `plan`; folded copies (`k`) have none."""
    steps = [path.partition(".") for path in paths]
    return tuple(rest or head for head, _, rest in steps if head != "k")


@lru_cache(4096)
def steps_of(paths: tuple[str, ...]) -> tuple[tuple[str, str, str], ...]:
    """Split paths into (path, first step, second step or ""); cached, because rows of one file share paths."""
    return tuple((path, *path.partition(".")[::2]) for path in paths)


def _users(found: Iterable[Document]) -> list[UserDocument]:
    return cast("list[UserDocument]", list(found))


@named_queries("users")
class Users:
    """The `users` collection of one database, written with majority."""

    NAME: Final = "users"
    INDEXES: Final[Sequence[Document]] = ()

    def __init__(self, database: Database[Document]) -> None:
        self._database = database
        self._users = database.get_collection(self.NAME, write_concern=MAJORITY)

    def server_now(self) -> Instant:
        """Return system time by MongoDB's own clock."""
        now = self._database.command("hello")["localTime"]
        return instant(now if now.tzinfo else now.replace(tzinfo=UTC))

    def read_range(
        self, workspace: str, first: str, until: str, limit: int, projection: Mapping[str, int] | None = None
    ) -> list[UserDocument]:
        """Return at most `limit` users with a suffix in [first, until), with tombstones, in the order of their keys."""
        documents = self._users.find(range_filter(workspace, first, until), projection, batch_size=limit)
        return _users(documents.sort("_id", 1).limit(limit))

    def find_range(
        self,
        workspace: str,
        query: Mapping[str, Any],
        first: str,
        until: str,
        limit: int,
        projection: Mapping[str, int] | None = None,
    ) -> list[UserDocument]:
        """Return at most `limit` users who match `query` with a suffix in [first, until), in the order of their keys.

        Index: one that begins with the workspace and a field of the query if there is one, otherwise a range scan.
        """
        filters = {"$and": [{"w": workspace, **range_filter(workspace, first, until)}, dict(query)]}
        documents = self._users.find(filters, projection, batch_size=limit)
        return _users(documents.sort("_id", 1).limit(limit))

    def indexed(self) -> list[tuple[str, ...]]:
        """Return the keys of every index, in order."""
        return [tuple(key for key, _ in index["key"]) for index in self._users.index_information().values()]

    def read_whole(self, workspace: str, first: str, until: str, projection: Mapping[str, int]) -> list[Document]:
        """Return all users with a suffix in [first, until), read with majority, in the order of their keys.

        The feed gets no change for what a failover rolls back, so stored data must not contain it.
        """
        users = self._database.get_collection(self.NAME, read_concern=READ_MAJORITY)
        documents = users.find(range_filter(workspace, first, until), projection, batch_size=_ONE_ANSWER)
        return list(documents.sort("_id", 1))

    def read_keys(self, keys: Iterable[str], projection: Mapping[str, int] | None = None) -> list[UserDocument]:
        """Return those of `keys` that exist, in the order of their keys."""
        return _users(self._users.find(keys_filter(keys), projection).sort("_id", 1))

    def deleted(self, keys: Iterable[str]) -> set[str]:
        """Return those of `keys` that are tombstones."""
        return {document["_id"] for document in self._users.find(deleted_filter(keys), {"_id": 1})}

    def get(self, key: str) -> Document | None:
        """Return one user, or None."""
        return self._users.find_one({"_id": key})

    def estimate(self, workspace: str) -> int:
        """Estimate the number of users: count a slice of the hash space and scale it up; exact for few users.

        Index: `_id_`, a covered count of at most some thousand keys.
        """
        share = 1 << 12
        while True:
            until = hash_prefix(HASH_SPACE // share)
            counted = self._users.count_documents(range_filter(workspace, hash_prefix(0), until), hint="_id_")
            if counted >= _SAMPLE or share == 1:
                return counted * share
            share = max(1, min(share // 2, share * max(counted, 1) // (2 * _SAMPLE)))

    def population(self, workspace: str, most: int) -> Population:
        """Return the number of users, without tombstones: counted up to `most` of them, estimated beyond.

        Index: `_id_`; the server reads every user to count, about 0.2 s for 250,000.
        """
        whole = range_filter(workspace, hash_prefix(0), hash_prefix(HASH_SPACE))
        if self._users.count_documents(whole, hint="_id_", limit=most + 1) > most:
            return Population(max(most + 1, self.estimate(workspace)), estimated=True)
        living = {**whole, "deleted": {"$ne": True}}
        return Population(self._users.count_documents(living, hint="_id_"), estimated=False)

    def rewrite(
        self, keys: Iterable[str], plan: Planner, projection: Mapping[str, int] | None = None
    ) -> dict[str, bool]:
        """Read users, plan edits, and write each if its revision is still the one read; repeat for those that lost.

        All updates of users take this path. `plan` runs after the revisions are read, so anything else it reads is at
        least as new. It runs again for users that another writer changed first, and must then plan from their new
        state. Return the written keys, True if the user is new. Raises `Contended` if other writers never stop.
        """
        left = sorted(set(keys))
        written: dict[str, bool] = {}
        broken = False
        for _ in range(_TRIES):
            if not left:
                return written
            documents = {document["_id"]: document for document in self.read_keys(left, projection)}
            edits = plan(left, documents)
            new = {key: edit for key, edit in edits.items() if key not in documents}
            old = {key: edit for key, edit in edits.items() if key in documents}
            again = self._insert(new)
            written.update((key, True) for key in new if key not in again)
            # An update that lost is planned again. If it had succeeded after all, that plan finds nothing to do.
            written.update((key, False) for key in old if key not in written)
            try:
                again |= self._update(old, documents)
            except AutoReconnect:
                if broken:
                    raise
                broken = True
                again |= old.keys()
            left = sorted(again)
        raise Contended

    def _insert(self, edits: Mapping[str, Edit]) -> set[str]:
        """Create users with the server's time as revision; return those that exist already."""
        if not edits:
            return set()
        rev = self.server_now()
        documents = [new_document(key, edit, rev) for key, edit in edits.items()]
        return {documents[index]["_id"] for index in insert_new(self._users, documents)}

    def _update(self, edits: Mapping[str, Edit], documents: Mapping[str, Document]) -> set[str]:
        """Write edits whose revision is still the one read; if any was not, return all keys to be planned again.

        The new revision is `max(rev + 1, server milliseconds)`. Each filter names one document, but the write is an
        update of many: for those MongoDB keeps no retry record, which would make them take half as long again. Raises
        `AutoReconnect` if the answer is lost.
        """
        if not edits:
            return set()
        now = self.server_now()
        changes = []
        for key, edit in edits.items():
            rev: int = documents[key]["rev"]
            changes.append(UpdateMany(unchanged_filter(key, rev), edit_update(edit, max(rev + 1, now))))
        with measured("users.update") as call:
            done = write(self._users, changes)
            call.documents = done.matched_count
        return set() if done.matched_count == len(changes) else set(edits)

    def delete(self, key: str) -> bool:
        """Turn a user into a tombstone that keeps only the key; return False if the user does not exist (any more)."""
        done = self._users.update_one({"_id": key, "deleted": {"$ne": True}}, tombstone_pipeline())
        return done.matched_count == 1


def new_document(key: str, edit: Edit, rev: Instant) -> Document:
    """Build the document of a new user."""
    document: Document = {
        "_id": key,
        "w": workspace_of(key),
        "u": user_id_of(key),
        "rev": rev,
        "changed": [CREATED, *edit.names],
    }
    fields = edit.fields
    for path, head, rest in steps_of(tuple(fields)):
        value = fields[path]
        if value is None:
            continue
        if not rest:
            document[head] = value
        elif head in document:
            document[head][rest] = value
        else:
            document[head] = {rest: value}
    return document


_KEY: Final = user_key("w", "hh-1")
explained("users.read_range", "_id_", find_command("users", range_filter("w", "0", "8"), sort={"_id": 1}, limit=1000))
_PLAN: Final[Document] = {"$and": [{"w": "w", **range_filter("w", "0", "8")}, {"a.plan": {"$eq": "gold"}}]}
explained("users.find_range", "_id_", find_command("users", _PLAN, sort={"_id": 1}, limit=1000))
explained("users.read_whole", "_id_", find_command("users", range_filter("w", "0", "8"), sort={"_id": 1}))
explained("users.read_keys", "_id_", find_command("users", keys_filter([_KEY, "w/0/a"]), sort={"_id": 1}))
explained("users.deleted", "_id_", find_command("users", deleted_filter([_KEY, "w/0/a"]), projection={"_id": 1}))
explained("users.estimate", "_id_", {"count": "users", "query": range_filter("w", "0", "1"), "hint": "_id_"})
_EDIT: Final = edit_update(Edit({"email": "x"}), 2)
explained("users.update", "_id_", update_command("users", unchanged_filter(_KEY, 1), _EDIT))
explained("users.delete", "_id_", update_command("users", {"_id": _KEY}, tombstone_pipeline()))
