"""The progress of imports: one document per file, kind and workspace, written after the work that it records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pymongo.database import Database

from engine.domain.document import Document
from engine.query_metrics import named_queries
from engine.stores.mongo.client import MAJORITY
from engine.stores.mongo.query_plans import explained, find_command


@named_queries("imports")
class ImportCursors:
    """The `imports` collection of one database, written with majority."""

    NAME: Final = "imports"
    INDEXES: Final[Sequence[Document]] = ()

    def __init__(self, database: Database[Document]) -> None:
        self._imports = database.get_collection(self.NAME, write_concern=MAJORITY)

    def load(self, key: str) -> Mapping[str, Any] | None:
        """Return the last saved state of an import that has not ended, or None. Index: `_id_`."""
        return self._imports.find_one({"_id": key}, {"_id": 0})

    def save(self, key: str, state: Mapping[str, object]) -> None:
        """Move the cursor; the work up to it is done. Index: `_id_`."""
        self._imports.replace_one({"_id": key}, dict(state), upsert=True)

    def clear(self, key: str) -> None:
        """Delete the cursor: the import has ended, or starts again from the beginning. Index: `_id_`."""
        self._imports.delete_one({"_id": key})


explained("imports.load", "_id_", find_command("imports", {"_id": "grocer/users/1"}))
