"""Lists: named sets of users, one document `{_id: "w/list/h/u"}` per member; `users.lists` is derived from them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from pymongo.database import Database

from engine.domain.changes import Applied, RowOutcome
from engine.domain.document import Document
from engine.domain.keys import HIGHEST, list_of_member, member_key, suffix_of_user, workspace_of
from engine.query_metrics import measured, named_queries
from engine.stores.mongo.bulk_writes import insert_new
from engine.stores.mongo.client import MAJORITY
from engine.stores.mongo.query_plans import delete_command, explained, find_command, update_command
from engine.stores.mongo.user_upserts import TOMBSTONE
from engine.stores.mongo.users import Edit, Users, keys_filter


def members_filter(workspace: str, name: str, first: str, until: str) -> Document:
    """Build the filter for members of one list with a suffix in [first, until). Index: `_id_`, a range scan."""
    return {"_id": {"$gte": member_key(workspace, name, first), "$lt": member_key(workspace, name, until)}}


def others_filter(workspace: str, name: str, run: str) -> Document:
    """Build the filter for members that an import has not named. Index: `_id_`, a range scan over the list."""
    return {**members_filter(workspace, name, "0", HIGHEST), "run": {"$ne": run}}


@named_queries("lists")
class Lists:
    """The `list_members` collection of one database, written with majority."""

    NAME: Final = "list_members"
    INDEXES: Final[Sequence[Document]] = ()

    def __init__(self, database: Database[Document], users: Users, initial: Mapping[str, object]) -> None:
        """`initial` are the derived fields of a user who first appears as a list member."""
        self._members = database.get_collection(self.NAME, write_concern=MAJORITY)
        self._users = users
        self._initial = dict(initial)

    def add(self, name: str, keys: Sequence[str], *, run: str | None = None) -> Applied:
        """Add members, one outcome per row: `CREATED`, `UNCHANGED` (already a member), `REPEATED` (named twice here).

        `run` marks the users named by an import that replaces the list. An unknown user is created with only the id; a
        deleted user is `REJECTED`.
        """
        gone = self._users.deleted(set(keys))
        ids = {key: self._id(name, key) for key in dict.fromkeys(keys) if key not in gone}
        known = self._known(ids.values()) if ids else set()
        new = [{"_id": member, **({"run": run} if run else {})} for member in ids.values() if member not in known]
        known |= {new[index]["_id"] for index in insert_new(self._members, new)}
        if run and known:
            with measured("lists.mark"):
                self._members.update_many(keys_filter(known), {"$set": {"run": run}})
        touched = self.derive(name, list(ids))
        return self._applied(keys, gone, {key: member not in known for key, member in ids.items()}, touched)

    def _known(self, ids: Iterable[str]) -> set[str]:
        """Return those of some memberships that exist."""
        with measured("lists.known") as call:
            known = {document["_id"] for document in self._members.find(keys_filter(ids), {"_id": 1})}
            call.documents = len(known)
        return known

    def remove(self, name: str, keys: Sequence[str]) -> Applied:
        """Remove members, one outcome per row: `UPDATED` (was a member), `UNCHANGED` (was none), `REPEATED`."""
        ids = {key: self._id(name, key) for key in dict.fromkeys(keys)}
        known = self._known(ids.values()) if ids else set()
        if known:
            self._members.delete_many(keys_filter(known))
        touched = self.derive(name, list(ids), create=False)
        applied = self._applied(keys, set(), dict.fromkeys(ids, False), touched)
        seen: set[str] = set()
        for number, key in enumerate(keys):
            if key not in seen and ids[key] in known:
                applied.outcomes[number] = RowOutcome.UPDATED
            seen.add(key)
        return applied

    def remove_others(self, workspace: str, name: str, run: str, limit: int) -> tuple[int, set[str]]:
        """Remove at most `limit` members that the import `run` has not named; return their number and users written."""
        with measured("lists.others") as call:
            documents = self._members.find(others_filter(workspace, name, run), {"_id": 1}).sort("_id", 1).limit(limit)
            ids = [document["_id"] for document in documents]
            call.documents = len(ids)
        if not ids:
            return 0, set()
        self._members.delete_many({**keys_filter(ids), "run": {"$ne": run}})
        keys = [f"{workspace}/{member.split('/', 2)[2]}" for member in ids]
        return len(ids), self.derive(name, keys, create=False)

    def derive(self, name: str, keys: Sequence[str], *, create: bool = True) -> set[str]:
        """Bring `users.lists` of the users `keys` into line with their membership of list `name`; return those written.

        A member without a user document gets one without attributes, unless `create` is False. If the user is deleted,
        the membership is removed: `add` refuses deleted users, so it was stored while the deletion ran.
        """
        orphans: set[str] = set()

        def plan(chunk: Collection[str], documents: Mapping[str, Document]) -> dict[str, Edit]:
            ids = {self._id(name, key): key for key in chunk}
            members = {ids[member] for member in self._known(ids)}
            edits: dict[str, Edit] = {}
            for key in chunk:
                document = documents.get(key)
                if document is None and create and key in members:
                    edits[key] = Edit({**self._initial, "lists": [name]}, [f"list:{name}"])
                elif document is not None and document.get("deleted"):
                    if key in members:
                        orphans.add(self._id(name, key))
                elif document is not None:
                    lists: list[str] = document.get("lists", [])
                    if (name in lists) != (key in members):
                        now = sorted({*lists, name} if key in members else set(lists) - {name})
                        edits[key] = Edit({"lists": now}, [f"list:{name}"])
            return edits

        written = set(self._users.rewrite(keys, plan, {"rev": 1, "lists": 1, "deleted": 1}))
        if orphans:
            self._members.delete_many(keys_filter(orphans))
        return written

    def read_range(self, workspace: str, name: str, first: str, until: str, limit: int) -> list[str]:
        """Return the user keys of at most `limit` members with a suffix in [first, until), in order."""
        documents = self._members.find(members_filter(workspace, name, first, until), {"_id": 1}).sort("_id", 1)
        return [f"{workspace}/{document['_id'].split('/', 2)[2]}" for document in documents.limit(limit)]

    def size(self, workspace: str, name: str) -> int:
        """Return the number of members of a list. Index: `_id_`, a covered count."""
        return self._members.count_documents(members_filter(workspace, name, "0", HIGHEST), hint="_id_")

    def names(self, workspace: str) -> list[str]:
        """Return the lists of a workspace that have members. Index: `_id_`, one seek a list."""
        names: list[str] = []
        bound = f"{workspace}/"
        while True:
            filters = {"_id": {"$gte": bound, "$lt": f"{workspace}0"}}
            document = self._members.find_one(filters, {"_id": 1}, sort=[("_id", 1)])
            if document is None:
                return names
            names.append(list_of_member(document["_id"]))
            bound = member_key(workspace, names[-1], "").removesuffix("/") + "0"  # the character after "/"

    def erase(self, key: str) -> int:
        """Remove one user from all lists of the workspace without writing the user; return from how many."""
        workspace = workspace_of(key)
        ids = [self._id(name, key) for name in self.names(workspace)]
        return self._members.delete_many(keys_filter(ids)).deleted_count if ids else 0

    @staticmethod
    def _id(name: str, key: str) -> str:
        return member_key(workspace_of(key), name, suffix_of_user(key))

    @staticmethod
    def _applied(keys: Sequence[str], gone: set[str], new: Mapping[str, bool], touched: set[str]) -> Applied:
        outcomes: list[RowOutcome] = []
        reasons: dict[int, str] = {}
        seen: set[str] = set()
        for number, key in enumerate(keys):
            if key in gone:
                outcomes.append(RowOutcome.REJECTED)
                reasons[number] = TOMBSTONE
            elif key in seen:
                outcomes.append(RowOutcome.REPEATED)
            else:
                outcomes.append(RowOutcome.CREATED if new[key] else RowOutcome.UNCHANGED)
            seen.add(key)
        return Applied(outcomes, touched, reasons)


_SAMPLE: Final = member_key("w", "campaign-1", "00000000/hh-1")
explained("lists.known", "_id_", find_command("list_members", keys_filter([_SAMPLE, "w/a/b"]), projection={"_id": 1}))
explained("lists.mark", "_id_", update_command("list_members", keys_filter([_SAMPLE, "w/a/b"]), {"$set": {"run": "r"}}))
explained("lists.remove", "_id_", delete_command("list_members", keys_filter([_SAMPLE, "w/a/b"])))
explained("lists.others", "_id_", find_command("list_members", others_filter("w", "l", "r"), sort={"_id": 1}, limit=9))
explained("lists.read_range", "_id_", find_command("list_members", members_filter("w", "l", "0", "8"), sort={"_id": 1}))
explained("lists.names", "_id_", find_command("list_members", {"_id": {"$gte": "w/"}}, sort={"_id": 1}, limit=1))
