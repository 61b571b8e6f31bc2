"""Brings indexes and templates up to date; safe to run twice, and while the engine runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from pymongo import IndexModel
from pymongo.database import Database
from pymongo.errors import OperationFailure

from engine.errors import OperatorError
from engine.shipped import shipped
from engine.stores import campaigns, enrolments, index_requests, looks, runs, slices, statistics
from engine.stores.documents import Document
from engine.stores.events import Events
from engine.stores.lists import Lists
from engine.stores.users import Users

if TYPE_CHECKING:
    from engine.stores.search_index import UserIndex

USERS_TEMPLATE: Final = "conf/index-templates/users.json"

_INDEXES: Final[dict[str, list[IndexModel]]] = {
    "enrolments": list(enrolments.INDEXES),
    "slices": list(slices.INDEXES),
    "runs": list(runs.INDEXES),
    "index_requests": list(index_requests.INDEXES),
    "looks": list(looks.INDEXES),
    "stats": list(statistics.INDEXES),
    "campaigns": list(campaigns.INDEXES),
    "campaign_revisions": list(campaigns.REVISION_INDEXES),
    **{store.NAME: [IndexModel(**given) for given in store.INDEXES] for store in (Users, Events, Lists)},
}
COLLECTIONS: Final = (
    *_INDEXES,
    *("policies", "leases", "settings", "imports", "feeds", "dirty_ranges", "cache_layouts"),
    *("process_failures", "workspaces", "owed_passes"),
)


def migrate_mongo(database: Database[Document]) -> int:
    """Create collections and indexes that are missing; gives how many indexes the engine relies on.

    Raises `OperatorError` where an index of the same name is of another shape.
    """
    present = set(database.list_collection_names())
    for name in COLLECTIONS:
        if name not in present:
            try:
                database.create_collection(name)
            except OperationFailure as error:
                if error.code != 48:  # NamespaceExists: another process made it meanwhile
                    raise
    campaigns.upgrade(database)
    count = 0
    for name, models in _INDEXES.items():
        if not models:
            continue
        try:
            count += len(database[name].create_indexes(models))
        except OperationFailure as error:
            raise OperatorError(
                f"an index of {name} cannot be made: {error.details and error.details.get('errmsg')}",
                remedy="drop the index of that name, then migrate again",
            ) from error
    return count


def migrate_search(index: UserIndex) -> None:
    """Create the users' template and index where they are missing. Raises as `UserIndex.ensure` does."""
    template = json.loads(shipped(USERS_TEMPLATE).read_text(encoding="utf-8"))
    index.ensure(template)
