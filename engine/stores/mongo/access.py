"""Who may see the pages: one document for each access, and the key that signs sessions.

    accesses: {_id: NAME, role, workspace, number, created, password, token}
    access_keys: {_id: "session", key}

Passwords and tokens are kept as hashes only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from engine.domain.access import Access, Role
from engine.domain.document import Document
from engine.query_metrics import named_queries
from engine.stores.mongo.client import MAJORITY
from engine.stores.mongo.work_documents import without_none

NAME: Final = "accesses"
KEYS: Final = "access_keys"


@named_queries("accesses")
class Accesses:
    """The accesses of all people and scripts; some dozens at most."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection(NAME, write_concern=MAJORITY)
        self._keys: Collection[Document] = database.get_collection(KEYS, write_concern=MAJORITY)

    def everything(self) -> list[Access]:
        """Return every access, by name; all are read through `_id`."""
        return [_access(raw) for raw in self._all.find({"_id": {"$gt": ""}}).sort("_id", 1)]

    def add(self, access: Access) -> bool:
        """Record a new access; return False if there is one of this name. Index: `_id`."""
        document = without_none(
            {
                "_id": access.name,
                "role": access.role.value,
                "workspace": access.workspace,
                "number": access.number,
                "created": access.created,
                "password": access.password or None,
                "token": access.token or None,
            }
        )
        try:
            self._all.insert_one(document)
        except DuplicateKeyError:
            return False
        return True

    def remove(self, name: str) -> bool:
        """Delete an access; return whether there was one. Index: `_id`."""
        return self._all.delete_one({"_id": name}).deleted_count == 1

    def session_key(self, candidate: str) -> str:
        """Return the key that signs sessions: the recorded one, or `candidate`, recorded now. Index: `_id`."""
        once = {"$setOnInsert": {"key": candidate}}
        after = ReturnDocument.AFTER
        try:
            raw = self._keys.find_one_and_update({"_id": "session"}, once, upsert=True, return_document=after)
        except DuplicateKeyError:  # another process recorded one at this moment
            raw = self._keys.find_one({"_id": "session"})
        return str(raw["key"]) if raw is not None else candidate


def _access(raw: Document) -> Access:
    return Access(
        name=raw["_id"],
        role=Role(raw["role"]),
        workspace=raw.get("workspace"),
        number=raw["number"],
        created=raw["created"],
        password=raw.get("password", ""),
        token=raw.get("token", ""),
    )


NAMED: Final[Mapping[str, str]] = {"accesses.everything": "_id_"}
"""The named queries and the index each relies on."""
