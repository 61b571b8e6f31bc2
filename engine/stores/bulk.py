"""Bulk writes: which documents exist already, and what is done but not confirmed by a majority.

pymongo raises the same `BulkWriteError` for a document that MongoDB refuses and for a majority that does not answer in
time. The second is an outage: whoever wrote is not to blame, and writes again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NoReturn

from bson.raw_bson import RawBSONDocument
from pymongo import DeleteOne, InsertOne, UpdateMany, UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, WTimeoutError
from pymongo.results import BulkWriteResult

from engine.domain.document import Document

_DUPLICATE: Final = 11000


def insert_new(collection: Collection[Document], documents: Sequence[Document | RawBSONDocument]) -> list[int]:
    """Insert documents, their key as `_id`; gives the numbers of those that exist already: they stay as they are.

    Raises `WTimeoutError` where no majority has confirmed it, `BulkWriteError` where anything else failed.
    """
    if not documents:
        return []
    try:
        collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        failed = error.details.get("writeErrors", [])
        if error.details.get("writeConcernErrors") or any(one["code"] != _DUPLICATE for one in failed):
            _raise(error)
        return [int(one["index"]) for one in failed]
    return []


def write(
    collection: Collection[Document],
    writes: Sequence[InsertOne[Document] | UpdateOne | UpdateMany | DeleteOne],
    *,
    ordered: bool = False,
) -> BulkWriteResult:
    """Write at least one operation.

    Raises `WTimeoutError` where no majority has confirmed it, `BulkWriteError` where anything else failed.
    """
    try:
        return collection.bulk_write(writes, ordered=ordered)
    except BulkWriteError as error:
        _raise(error)


def _raise(error: BulkWriteError) -> NoReturn:
    unconfirmed = error.details.get("writeConcernErrors")
    if unconfirmed:
        raise WTimeoutError(str(unconfirmed[0].get("errmsg", "")), unconfirmed[0].get("code")) from error
    raise error
