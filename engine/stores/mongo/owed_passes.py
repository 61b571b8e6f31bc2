"""Campaigns that owe all users an evaluation: they missed changes while their file did not fit their workspace.

    {_id: campaign uid, count}

`count` rises with every missed change, so a debt that grows while it is being paid remains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pymongo.collection import Collection
from pymongo.database import Database

from engine.domain.document import Document
from engine.query_metrics import named_queries
from engine.stores.mongo.client import MAJORITY


@named_queries("owed_passes")
class OwedPasses:
    """The campaigns that owe a full pass."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection("owed_passes", write_concern=MAJORITY)

    def owe(self, uid: str) -> None:
        """Record that a campaign missed changes. Index: `_id`."""
        self._all.update_one({"_id": uid}, {"$inc": {"count": 1}}, upsert=True)

    def read(self) -> dict[str, int]:
        """Return the debts by uid; usually none. Index: `_id_`."""
        return {raw["_id"]: raw["count"] for raw in self._all.find({"_id": {"$gt": ""}})}

    def paid(self, uid: str, count: int) -> bool:
        """Delete a debt after its pass was written; return False if it has grown meanwhile. Index: `_id`."""
        return self._all.delete_one({"_id": uid, "count": count}).deleted_count == 1


NAMED: Final[Mapping[str, str]] = {"owed_passes.read": "_id_"}
"""The named queries and the index each relies on."""
