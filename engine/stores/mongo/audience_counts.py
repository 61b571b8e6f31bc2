"""Count users that match a filter, for `campaign plan`. Only for filters that MongoDB answers exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pymongo.collection import Collection
from pymongo.database import Database

from engine.domain.document import Document
from engine.domain.keys import HIGHEST
from engine.query_metrics import named_queries


@named_queries("audience")
class Audience:
    """Counts over the users of one workspace."""

    def __init__(self, database: Database[Document]) -> None:
        self._users: Collection[Document] = database.get_collection("users")

    def count(self, workspace: str, query: Mapping[str, Any]) -> int:
        """Count the matching users of a workspace, without tombstones. Index: `_id` range of the workspace.

        The server reads every user of the workspace, which takes seconds for millions.
        """
        filters = {**_inside(workspace), "deleted": {"$ne": True}}
        return self._users.count_documents({"$and": [filters, dict(query)]}, hint="_id_")

    def count_up_to(self, workspace: str, query: Mapping[str, Any], limit: int) -> int:
        """Count the matching users of a workspace, with tombstones, up to `limit`: as many as an index would read.

        Index: the operator's, if one begins with the workspace and the query's field; otherwise `_id`.
        """
        return self._users.count_documents({"$and": [{"w": workspace, **_inside(workspace)}, dict(query)]}, limit=limit)


def _inside(workspace: str) -> Document:
    return {"_id": {"$gte": f"{workspace}/", "$lt": f"{workspace}/{HIGHEST}"}}


NAMED: Final[Mapping[str, str]] = {"audience.count": "_id_", "audience.count_up_to": "_id_"}
"""The named queries and the index each relies on."""
