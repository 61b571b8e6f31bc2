"""Suppressed addresses: one small document for each, under a hash of the address.

    {_id: "WORKSPACE/HASH", reason, campaign, message, since}

`campaign` is the uid of the campaign whose mail bounced; `since` is written by MongoDB's clock. A document remains
until a person lifts the suppression.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database

from engine.domain.document import Document
from engine.domain.suppression import Bounced, Suppression, suppression_key
from engine.query_metrics import named_queries
from engine.stores.mongo.bulk_writes import write
from engine.stores.mongo.client import MAJORITY

NAME: Final = "suppressions"


@named_queries("suppressions")
class Suppressions:
    """The suppressed addresses of all workspaces."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection(NAME, write_concern=MAJORITY)

    def among(self, workspace: str, addresses: Iterable[str]) -> set[str]:
        """Return those of `addresses` that are suppressed. Index: `_id`, covered."""
        key_of = {address: suppression_key(workspace, address) for address in addresses}
        if not key_of:
            return set()
        keys = list(key_of.values())
        suppressed = {
            raw["_id"] for raw in self._all.find({"_id": {"$in": keys}}, {"_id": 1}, batch_size=len(keys) + 1)
        }
        return {address for address, key in key_of.items() if key in suppressed} if suppressed else suppressed

    def get(self, workspace: str, address: str) -> Suppression | None:
        """Return why an address is suppressed; None if it is not. Index: `_id`."""
        raw = self._all.find_one({"_id": suppression_key(workspace, address)})
        return None if raw is None else Suppression(raw["reason"], raw["campaign"], raw["message"], raw["since"])

    def add(self, workspace: str, bounced: Sequence[Bounced]) -> None:
        """Suppress addresses; an address that is suppressed already keeps its first reason. Index: `_id`."""
        writes = [
            UpdateOne({"_id": suppression_key(workspace, bounce.address)}, _first(bounce), upsert=True)
            for bounce in {bounce.address.lower(): bounce for bounce in bounced}.values()
        ]
        if writes:
            write(self._all, writes)

    def lift(self, workspace: str, address: str) -> bool:
        """Lift the suppression of an address; return whether it was suppressed. Index: `_id`."""
        return self._all.delete_one({"_id": suppression_key(workspace, address)}).deleted_count == 1


def _first(bounced: Bounced) -> list[Document]:
    """Build the update that keeps existing values."""
    given = {"reason": bounced.reason, "campaign": bounced.campaign, "message": bounced.message}
    first: Document = {name: {"$ifNull": [f"${name}", {"$literal": value}]} for name, value in given.items()}
    return [{"$set": {**first, "since": {"$ifNull": ["$since", {"$toLong": "$$NOW"}]}}}]


NAMED: Final[Mapping[str, str]] = {"suppressions.among": "_id_"}
"""The named queries and the index each relies on."""
