"""Bulk writes on MongoDB: existing documents, and writes that no majority confirms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pymongo import UpdateMany, WriteConcern
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from engine.stores.mongo.bulk_writes import insert_new, write
from engine.stores.stores import Stores

Documents = Collection[dict[str, Any]]
TEN = [{"_id": number} for number in range(10)]


@pytest.fixture
def some(database: Database[dict[str, Any]]) -> Documents:
    return database["some"]


def test_existing_documents_are_reported_by_position_and_left_unchanged(some: Documents) -> None:
    some.insert_many([{"_id": 3, "old": True}, {"_id": 7, "old": True}])
    assert insert_new(some, TEN) == [3, 7]
    assert insert_new(some, TEN) == list(range(10))
    assert insert_new(some, []) == []
    assert [raw["_id"] for raw in some.find({"old": True}).sort("_id", 1)] == [3, 7]
    assert some.count_documents({}) == 10


def test_a_write_that_mongodb_refuses_raises(database: Database[dict[str, Any]]) -> None:
    strict = database.create_collection("strict", validator={"size": {"$lt": 10}})
    with pytest.raises(BulkWriteError):
        insert_new(strict, [{"_id": 1, "size": 1}, {"_id": 2, "size": 11}])
    assert [raw["_id"] for raw in strict.find()] == [1]
    with pytest.raises(BulkWriteError):
        write(strict, [UpdateMany({}, {"$inc": {"size": 10}})])


@pytest.mark.parametrize(
    "act",
    [
        lambda some: insert_new(some, TEN),
        lambda some: write(some, [UpdateMany({}, {"$set": {"seen": True}})]),
        lambda some: write(some, [UpdateMany({}, {"$set": {"seen": True}})], ordered=True),
    ],
    ids=["insert", "write", "ordered"],
)
@pytest.mark.parametrize("there", [0, 5])
def test_a_write_without_a_majority_is_an_outage_though_it_is_done(
    act: Callable[[Documents], object], there: int, some: Documents
) -> None:
    """A replica set of one never has the second member that the write concern requires."""
    insert_new(some, TEN[:there] or [{"_id": -1}])
    with pytest.raises(Stores.OUTAGES):
        act(some.with_options(write_concern=WriteConcern(2, wtimeout=50)))
    assert some.count_documents({"seen": True}) in (0, max(1, there))
    assert some.count_documents({"_id": {"$gte": 0}}) in (there, 10)
