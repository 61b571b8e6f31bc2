"""Brings indexes and templates up to date; safe to run twice, in many processes at once, and while others work.

Nothing is locked: each step is a command that may be given again, so whoever comes second finds it done. What the
server refuses because another process does the same at this moment is tried again.
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
from engine.stores import campaigns, enrolments, index_requests, looks, processes, runs, slices, statistics
from engine.stores.events import Events
from engine.stores.lists import Lists
from engine.stores.users import Users

if TYPE_CHECKING:
    from engine.stores.search_index import UserIndex

USERS_TEMPLATE: Final = "conf/index-templates/users.json"

INDEXES: Final[dict[str, list[IndexModel]]] = {
    "enrolments": list(enrolments.INDEXES),
    "slices": list(slices.INDEXES),
    "runs": list(runs.INDEXES),
    "index_requests": list(index_requests.INDEXES),
    "looks": list(looks.INDEXES),
    "processes": list(processes.INDEXES),
    "stats": list(statistics.INDEXES),
    "campaigns": list(campaigns.INDEXES),
    "campaign_revisions": list(campaigns.REVISION_INDEXES),
    **{store.NAME: [IndexModel(**given) for given in store.INDEXES] for store in (Users, Events, Lists)},
}
COLLECTIONS: Final = (
    *INDEXES,
    *("policies", "leases", "settings", "imports", "feeds", "dirty_ranges", "cache_layouts"),
    *("process_failures", "workspaces", "owed_passes", "suppressions"),
)


_NAMESPACE_EXISTS: Final = 48
_CONCURRENT: Final = frozenset(
    {
        24,  # LockTimeout
        26,  # NamespaceNotFound: dropped while its index was built
        46,  # LockBusy
        112,  # WriteConflict: of two that create a collection at once
        117,  # ConflictingOperationInProgress
        276,  # IndexBuildAborted
        12586,  # BackgroundOperationInProgressForDatabase
        12587,  # BackgroundOperationInProgressForNamespace
    }
)
"""Codes by which MongoDB refuses what it would do a moment later."""
_CONTRADICTS: Final = frozenset({67, 85, 86, 11000, 197})
"""CannotCreateIndex, IndexOptionsConflict, IndexKeySpecsConflict, DuplicateKey, InvalidIndexSpecificationOption: an
operator has to mend it."""
_TRIES: Final = 8
_PAUSE: Final = 0.05
"""Seconds before the second try, doubled each time: about 6 in all."""
BUILD_TIMEOUT: Final = 4 * 3_600.0
"""Seconds that building an index may take: on an older database with many users it takes minutes, and an operation's
ordinary limit (30 s) would abort the build, at each start anew."""

T = TypeVar("T")


def migrate_mongo(database: Database[Document]) -> int:
    """Create collections and indexes that are missing; gives how many indexes the engine relies on.

    Raises `OperatorError` where an index of the same name is of another shape.
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
    """Create a collection that is missing, also where another process creates it at the same time."""
    try:
        # The driver's own look whether it exists raises another error, and only makes the race longer.
        database.create_collection(name, check_exists=False)
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:
            raise


def _build(database: Database[Document], name: str, models: list[IndexModel]) -> int:
    """Build the indexes that are missing, and wait for those that another process builds; gives their number."""
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
    """What `step` gives, which is tried again while other processes stand in its way."""
    for attempt in range(_TRIES - 1):
        try:
            return step()
        except OperationFailure as error:
            if error.code not in _CONCURRENT:
                raise
        time.sleep(random.uniform(0.5, 1.0) * _PAUSE * 2**attempt)
    return step()


def migrate_search(index: UserIndex) -> None:
    """Create the users' template and index where they are missing. Raises as `UserIndex.ensure` does.

    Safe at once in several processes.
    """
    template = json.loads(shipped(USERS_TEMPLATE).read_text(encoding="utf-8"))
    index.ensure(template)
