"""Every set of workspace files that was ever in force, by its version."""

from __future__ import annotations

from pymongo.collection import Collection
from pymongo.database import Database

from engine.clock import Instant
from engine.domain.document import Document
from engine.query_metrics import named_queries
from engine.stores.mongo.client import MAJORITY


@named_queries("workspaces")
class WorkspaceVersions:
    """Recorded sets of workspaces: version, first use (system time) and content."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection("workspaces", write_concern=MAJORITY)

    def record(self, version: str, content: Document, at: Instant) -> None:
        """Record a version at its first use. Index: `_id`."""
        self._all.update_one({"_id": version}, {"$setOnInsert": {"first_used_at": at, "content": content}}, upsert=True)

    def history(self) -> list[Document]:
        """Return all versions, the latest first; a handful of documents, all read through `_id`."""
        documents = list(self._all.find({"_id": {"$gte": ""}}))
        return sorted(documents, key=lambda raw: raw["first_used_at"], reverse=True)
