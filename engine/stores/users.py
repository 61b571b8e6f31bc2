"""Users: read by key range, written by one update path that raises the revision and names what changed.

A document is `{_id: "w/h/u", w, u, rev, changed, deleted?, built-in fields, a: attributes, k: folded strings, g:
aggregates, e: event summaries, lists}` (`docs/import.md`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pymongo import UpdateMany
from pymongo.database import Database
from pymongo.errors import AutoReconnect

from engine.clock import Instant, instant
from engine.domain.counts import Population
from engine.domain.document import Document
from engine.domain.keys import HASH_SPACE, hash_prefix, user_id_of, user_key, workspace_of
from engine.errors import EngineError
from engine.measuring import measured, named_queries
from engine.stores.bulk import insert_new, write
from engine.stores.connect import MAJORITY, READ_MAJORITY
from engine.stores.explained import explained, find_command, update_command

CREATED: Final = "created"
DELETED: Final = "deleted"
"""Stand in `changed` for a new user and for a tombstone: both concern every campaign, whatever fields it names."""

_TRIES: Final = 100
"""Rounds against other writers of the same users; each round one of them gets through, so this is never reached."""

_SAMPLE: Final = 4_000
"""Users counted for an estimate: about 1.6 % standard error, some milliseconds."""

_ONE_ANSWER: Final = 100_000
"""Documents of one answer: it is bounded by its 16 MB only, so that most ranges cost one command."""


class Contended(EngineError):
    """Other processes keep changing the same users; try again when they have ended."""


class Edit(NamedTuple):
    """New values for one user: document path to value, None removes. `names` is what changed, by catalogue name."""

    fields: Mapping[str, object]
    names: Sequence[str] = ()


Planner = Callable[[Collection[str], Mapping[str, Document]], Mapping[str, Edit]]
"""From the keys asked for and the documents that exist to the edits; a key without a document is then created."""


def range_filter(workspace: str, first: str, until: str) -> Document:
    """Users with a suffix in [first, until). Index: `_id_`, a range scan."""
    return {"_id": {"$gte": f"{workspace}/{first}", "$lt": f"{workspace}/{until}"}}


def keys_filter(keys: Iterable[str]) -> Document:
    """Users by key, sorted so that neighbours are read together. Index: `_id_`, one seek a key at most."""
    return {"_id": {"$in": sorted(keys)}}


def deleted_filter(keys: Iterable[str]) -> Document:
    """Tombstones by key. Index: `_id_`."""
    return {**keys_filter(keys), "deleted": True}


def unchanged_filter(key: str, rev: int) -> Document:
    """One user at the revision that was read. Index: `_id_`."""
    return {"_id": key, "rev": rev}


NEXT_REVISION: Final[Document] = {"$max": [{"$add": [{"$ifNull": ["$rev", 0]}, 1]}, {"$toLong": "$$NOW"}]}
"""`max(rev + 1, server milliseconds)`: rises with every write, and past anything an older server wrote."""


def edit_update(edit: Edit, rev: Instant) -> Document:
    """The update of one edit, to the revision `rev`."""
    sets: Document = {path: value for path, value in edit.fields.items() if value is not None}
    sets["rev"], sets["changed"] = rev, list(edit.names)
    if len(sets) == len(edit.fields) + 2:
        return {"$set": sets}
    return {"$set": sets, "$unset": {path: "" for path, value in edit.fields.items() if value is None}}


def tombstone_pipeline() -> list[Document]:
    """Leaves nothing of a user but key, revision and the mark."""
    kept: Document = {name: f"${name}" for name in ("_id", "w", "u")}
    return [{"$replaceWith": {**kept, "rev": NEXT_REVISION, "changed": {"$literal": [DELETED]}, "deleted": True}}]


@lru_cache(4096)
def names_of(paths: tuple[str, ...]) -> tuple[str, ...]:
    """The catalogue's names of document paths: `a.plan` is `plan`; what is only derived from another has none."""
    steps = [path.partition(".") for path in paths]
    return tuple(rest or head for head, _, rest in steps if head != "k")


@lru_cache(4096)
def steps_of(paths: tuple[str, ...]) -> tuple[tuple[str, str, str], ...]:
    """Paths of one or two steps as (path, first step, second step or nothing): rows of one file name the same ones."""
    return tuple((path, *path.partition(".")[::2]) for path in paths)


@named_queries("users")
class Users:
    """The `users` collection of one database, written with majority."""

    NAME: Final = "users"
    INDEXES: Final[Sequence[Document]] = ()

    def __init__(self, database: Database[Document]) -> None:
        self._database = database
        self._users = database.get_collection(self.NAME, write_concern=MAJORITY)

    def server_now(self) -> Instant:
        """System time by MongoDB's own clock."""
        told = self._database.command("hello")["localTime"]
        return instant(told if told.tzinfo else told.replace(tzinfo=UTC))

    def read_range(
        self, workspace: str, first: str, until: str, limit: int, projection: Mapping[str, int] | None = None
    ) -> list[Document]:
        """At most `limit` users with a suffix in [first, until), tombstones too, in the order of their keys."""
        found = self._users.find(range_filter(workspace, first, until), projection, batch_size=limit)
        return list(found.sort("_id", 1).limit(limit))

    def find_range(
        self,
        workspace: str,
        query: Mapping[str, Any],
        first: str,
        until: str,
        limit: int,
        projection: Mapping[str, int] | None = None,
    ) -> list[Document]:
        """At most `limit` users who match `query` with a suffix in [first, until), in the order of their keys.

        Index: one that begins with the workspace and a field of the query where there is one, else a range scan.
        """
        wanted = {"$and": [{"w": workspace, **range_filter(workspace, first, until)}, dict(query)]}
        found = self._users.find(wanted, projection, batch_size=limit)
        return list(found.sort("_id", 1).limit(limit))

    def indexed(self) -> list[tuple[str, ...]]:
        """The keys of every index, in order."""
        return [tuple(key for key, _ in one["key"]) for one in self._users.index_information().values()]

    def read_whole(self, workspace: str, first: str, until: str, projection: Mapping[str, int]) -> list[Document]:
        """All users with a suffix in [first, until) as a majority has them, in the order of their keys.

        What a failover rolls back is no change that the feed hears of, so nothing that is kept may hold it.
        """
        users = self._database.get_collection(self.NAME, read_concern=READ_MAJORITY)
        found = users.find(range_filter(workspace, first, until), projection, batch_size=_ONE_ANSWER)
        return list(found.sort("_id", 1))

    def read_keys(self, keys: Iterable[str], projection: Mapping[str, int] | None = None) -> list[Document]:
        """Those of `keys` that exist, in the order of their keys."""
        return list(self._users.find(keys_filter(keys), projection).sort("_id", 1))

    def deleted(self, keys: Iterable[str]) -> set[str]:
        """Those of `keys` that are tombstones."""
        return {one["_id"] for one in self._users.find(deleted_filter(keys), {"_id": 1})}

    def get(self, key: str) -> Document | None:
        """One user, or None."""
        return self._users.find_one({"_id": key})

    def estimate(self, workspace: str) -> int:
        """About how many users there are: a slice of the hash space, counted and scaled up; exact when they are few.

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
        """How many users there are, tombstones left out: counted up to `most` of them, estimated beyond.

        Index: `_id_`; the count reads every user inside the server, some 0.2 s for 250,000.
        """
        whole = range_filter(workspace, hash_prefix(0), hash_prefix(HASH_SPACE))
        if self._users.count_documents(whole, hint="_id_", limit=most + 1) > most:
            return Population(max(most + 1, self.estimate(workspace)), estimated=True)
        living = {**whole, "deleted": {"$ne": True}}
        return Population(self._users.count_documents(living, hint="_id_"), estimated=False)

    def rewrite(
        self, keys: Iterable[str], plan: Planner, projection: Mapping[str, int] | None = None
    ) -> dict[str, bool]:
        """The one update path: read, plan, write where the revision is still the one read; repeat for who lost.

        `plan` runs after the revisions are read, so whatever it reads besides is at least as new. It is asked again
        for those where another writer came first, and must then plan from what is there. Returns the written keys,
        True where the user is new. Raises `Contended` when others never stop.
        """
        left = sorted(set(keys))
        written: dict[str, bool] = {}
        broken = False
        for _ in range(_TRIES):
            if not left:
                return written
            documents = {one["_id"]: one for one in self.read_keys(left, projection)}
            edits = plan(left, documents)
            new = {key: edit for key, edit in edits.items() if key not in documents}
            old = {key: edit for key, edit in edits.items() if key in documents}
            again = self._insert(new)
            written.update((key, True) for key in new if key not in again)
            # An update that lost is planned again; where it had got through after all, that plan finds nothing to do.
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
        """Create users with the server's time as revision; returns those that exist already."""
        if not edits:
            return set()
        rev = self.server_now()
        documents = [new_document(key, edit, rev) for key, edit in edits.items()]
        return {documents[index]["_id"] for index in insert_new(self._users, documents)}

    def _update(self, edits: Mapping[str, Edit], documents: Mapping[str, Document]) -> set[str]:
        """Write edits where the revision is the one read; when one was not, all of them are to be planned again.

        The new revision is `max(rev + 1, server milliseconds)`. The filters name one document each; they are updates of
        many, so that MongoDB keeps no record of each for a retry: with it they take half as long again. Raises
        `AutoReconnect` where the answer is lost.
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
        """Turn a user into a tombstone that keeps nothing but the key; False where there is none (any more)."""
        done = self._users.update_one({"_id": key, "deleted": {"$ne": True}}, tombstone_pipeline())
        return done.matched_count == 1


def new_document(key: str, edit: Edit, rev: Instant) -> Document:
    """The document of a new user."""
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
