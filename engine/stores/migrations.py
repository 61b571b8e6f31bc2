"""Bring indexes and templates up to date; safe to run twice, in many processes at once, and while others work.

It locks nothing: each step is a command that may be repeated, so a second process finds it done. If the server refuses
a step because another process does the same at that moment, the step is tried again.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import pymongo
from pymongo import IndexModel
from pymongo.database import Database
from pymongo.errors import OperationFailure

from engine.domain.document import Document
from engine.errors import OperatorError
from engine.shipped import shipped
from engine.stores.mongo import (
    campaign_tallies,
    campaigns,
    enrolments,
    index_requests,
    pending_rechecks,
    processes,
    query_statistics,
    runs,
    slices,
)
from engine.stores.mongo.events import Events
from engine.stores.mongo.lists import Lists
from engine.stores.mongo.users import Users

if TYPE_CHECKING:
    from engine.stores.search.user_index import UserIndex

USERS_TEMPLATE: Final = "conf/index-templates/users.json"

INDEXES: Final[dict[str, list[IndexModel]]] = {
    "enrolments": list(enrolments.INDEXES),
    "slices": list(slices.INDEXES),
    "runs": list(runs.INDEXES),
    "index_requests": list(index_requests.INDEXES),
    "looks": list(pending_rechecks.INDEXES),
    "processes": list(processes.INDEXES),
    "stats": list(query_statistics.INDEXES),
    "campaigns": list(campaigns.INDEXES),
    "campaign_tallies": list(campaign_tallies.INDEXES),
    "campaign_revisions": list(campaigns.REVISION_INDEXES),
    **{store.NAME: [IndexModel(**given) for given in store.INDEXES] for store in (Users, Events, Lists)},
}
COLLECTIONS: Final = (
    *INDEXES,
    *("policies", "leases", "settings", "imports", "feeds", "dirty_ranges", "cache_layouts"),
    *("process_failures", "workspaces", "owed_passes", "suppressions", "metric_totals"),
    *("accesses", "access_keys"),
)


_NAMESPACE_EXISTS: Final = 48
_CONCURRENT: Final = frozenset(
    {
        24,  # LockTimeout
        26,  # NamespaceNotFound: dropped while its index was built
        46,  # LockBusy
        112,  # WriteConflict: two processes create a collection at once
        117,  # ConflictingOperationInProgress
        276,  # IndexBuildAborted
        12586,  # BackgroundOperationInProgressForDatabase
        12587,  # BackgroundOperationInProgressForNamespace
    }
)
"""Codes by which MongoDB refuses a step that it would accept a moment later."""
_CONTRADICTS: Final = frozenset({67, 85, 86, 11000, 197})
"""CannotCreateIndex, IndexOptionsConflict, IndexKeySpecsConflict, DuplicateKey, InvalidIndexSpecificationOption: an
operator has to repair it."""
_TRIES: Final = 8
_PAUSE: Final = 0.05
"""Seconds before the second try, doubled each time: about 6 in all."""
BUILD_TIMEOUT: Final = 4 * 3_600.0
"""Seconds that building an index may take. On an older database with many users it takes minutes, and the ordinary
limit of an operation (30 s) would abort the build at every start."""

T = TypeVar("T")


def migrate_mongo(database: Database[Document]) -> int:
    """Create missing collections and indexes; return how many indexes the engine relies on.

    Raises `OperatorError` if an index of the same name has another shape.
    """
    present = set(database.list_collection_names())
    for name in COLLECTIONS:
        if name not in present:
            _again_while_busy(partial(_create, database, name))
    campaigns.upgrade(database)
    count = 0
    for name, models in INDEXES.items():
        if models:
            count += _again_while_busy(partial(_build, database, name, models))
    return count


def _create(database: Database[Document], name: str) -> None:
    """Create a missing collection, also if another process creates it at the same time."""
    try:
        # The driver's own existence check raises another error, and only makes the race longer.
        database.create_collection(name, check_exists=False)
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:
            raise


def _build(database: Database[Document], name: str, models: list[IndexModel]) -> int:
    """Build missing indexes, wait for those that another process builds, and return their number."""
    try:
        with pymongo.timeout(BUILD_TIMEOUT):
            return len(database[name].create_indexes(models))
    except OperationFailure as error:
        if error.code not in _CONTRADICTS:
            raise
        raise OperatorError(
            f"an index of {name} cannot be made: {error.details and error.details.get('errmsg')}",
            remedy="drop the index of that name, then migrate again",
        ) from error


def _again_while_busy(step: Callable[[], T]) -> T:
    """Return the result of `step`; retry it while other processes are in its way."""
    for attempt in range(_TRIES - 1):
        try:
            return step()
        except OperationFailure as error:
            if error.code not in _CONCURRENT:
                raise
        time.sleep(random.uniform(0.5, 1.0) * _PAUSE * 2**attempt)
    return step()


def migrate_search(index: UserIndex) -> None:
    """Create the users' template and index if they are missing. Raises as `UserIndex.ensure` does.

    Several processes may run it at once.
    """
    template = json.loads(shipped(USERS_TEMPLATE).read_text(encoding="utf-8"))
    index.ensure(template)
