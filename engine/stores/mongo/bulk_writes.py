"""Bulk writes that tell duplicate documents from writes that no majority has confirmed.

pymongo raises the same `BulkWriteError` for a document that MongoDB refuses and for a majority that does not confirm in
time. The second case is an outage: the writer is not to blame and writes again.
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
    """Insert documents with their key as `_id`; return the positions of those that already exist, which stay unchanged.

    Raises `WTimeoutError` if no majority has confirmed the write, `BulkWriteError` if anything else failed.
    """
    if not documents:
        return []
    try:
        collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        failed = error.details.get("writeErrors", [])
        if error.details.get("writeConcernErrors") or any(fault["code"] != _DUPLICATE for fault in failed):
            _raise(error)
        return [int(fault["index"]) for fault in failed]
    return []


def write(
    collection: Collection[Document],
    writes: Sequence[InsertOne[Document] | UpdateOne | UpdateMany | DeleteOne],
    *,
    ordered: bool = False,
) -> BulkWriteResult:
    """Write at least one operation.

    Raises `WTimeoutError` if no majority has confirmed the write, `BulkWriteError` if anything else failed.
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
