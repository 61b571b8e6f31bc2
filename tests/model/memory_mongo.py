"""A MongoDB in memory for the stores, which run on it unchanged, some hundred times as fast as on a real one.

`tests/model/test_memory_*.py` run the stores' own tests on it. Its clock is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from threading import RLock
from typing import Any, Final

import bson
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo import DeleteOne, InsertOne, UpdateMany, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure

from tests.model.memory_documents import (
    MISSING,
    Document,
    Test,
    at,
    compiled,
    copied,
    evaluated,
    projected,
    rank,
    updated,
)

_DUPLICATE: Final = 11000
_MISSING_HINT: Final = 2


class Done:
    """The result of a write."""

    def __init__(self, matched: int = 0, modified: int = 0, deleted: int = 0, upserted: object = None) -> None:
        self.matched_count = matched
        self.modified_count = modified
        self.deleted_count = deleted
        self.upserted_id = upserted


class Cursor:
    """The documents found; they are sorted and cut when read."""

    def __init__(self, documents: list[Document], projection: Mapping[str, Any] | None, limit: int = 0) -> None:
        self._found = documents
        self._projection = projection
        self._limit = limit

    def sort(self, key: str | Sequence[tuple[str, int]], direction: int = 1) -> Cursor:
        """Order by one path, or by several."""
        pairs = [(key, direction)] if isinstance(key, str) else list(key)
        for path, way in reversed(pairs):
            self._found.sort(key=lambda document, path=path: rank(at(document, path)), reverse=way < 0)  # type: ignore[misc]
        return self

    def limit(self, number: int) -> Cursor:
        """Return at most that many."""
        self._limit = number
        return self

    def __iter__(self) -> Iterator[Document]:
        for document in islice(self._found, self._limit or None):
            yield projected(document, self._projection)

    def next(self) -> Document:
        """Return the first document."""
        return next(iter(self))


class MemoryCollection:
    """One collection: documents by `_id`, in the order of their ids by default."""

    def __init__(self, database: MemoryDatabase, name: str) -> None:
        self.database = database
        self.name = name
        self.documents: dict[Any, Document] = {}
        self.unique: list[tuple[str, ...]] = []
        self.indexes = {"_id_"}

    # reading

    def with_options(self, **options: object) -> MemoryCollection:
        """Return itself: there is one copy, so every read is of a majority."""
        return self

    def _those(self, query: Mapping[str, Any] | None, hint: str | None = None) -> list[Document]:
        if isinstance(hint, str) and hint not in self.indexes:
            raise OperationFailure(f"there is no index {hint} of {self.name}", _MISSING_HINT)
        with self.database.lock:
            if not query:
                return list(self.documents.values())
            key = query.get("_id")
            if isinstance(key, (str, int)):
                held = self.documents.get(key)
                candidates: Iterable[Document] = [] if held is None else [held]
            elif isinstance(key, dict) and list(key) == ["$in"]:
                candidates = [
                    self.documents[key_of_user]
                    for key_of_user in dict.fromkeys(key["$in"])
                    if key_of_user in self.documents
                ]
            else:
                candidates = list(self.documents.values())
            test, now = self.database.test(query), self.database.now()
            return [candidate for candidate in candidates if test(candidate, now)]

    def find(
        self,
        query: Mapping[str, Any] | None = None,
        projection: Mapping[str, Any] | None = None,
        *,
        hint: str | None = None,
        limit: int = 0,
        batch_size: int = 0,
    ) -> Cursor:
        """Return the documents that match, by `_id` as the index does."""
        matching = self._those(query, hint)
        matching.sort(key=lambda document: rank(document["_id"]))
        return Cursor(matching, projection, limit)

    def find_one(
        self,
        query: Mapping[str, Any] | None = None,
        projection: Mapping[str, Any] | None = None,
        *,
        hint: str | None = None,
    ) -> Document | None:
        """Return the first document that matches."""
        return next(iter(self.find(query, projection, hint=hint, limit=1)), None)

    def count_documents(self, query: Mapping[str, Any], *, hint: str | None = None, limit: int | None = None) -> int:
        """Return how many match, up to `limit`."""
        count = len(self._those(query, hint))
        return count if limit is None else min(count, limit)

    def estimated_document_count(self) -> int:
        """Return the number of documents."""
        return len(self.documents)

    def index_information(self) -> dict[str, Any]:
        """Return the `_id` index only."""
        return {"_id_": {"key": [("_id", 1)]}}

    def create_indexes(self, models: Sequence[Any]) -> list[str]:
        """Keep unique indexes; note the others by name."""
        for model in models:
            answer = model.document
            self.indexes.add(answer["name"])
            if answer.get("unique"):
                self.unique.append(tuple(answer["key"]))
        return [model.document["name"] for model in models]

    # writing

    def _store(self, document: Document, *, new: bool) -> None:
        key = document["_id"]
        if new and key in self.documents:
            raise DuplicateKeyError(f"{self.name} has {key}", _DUPLICATE)
        for paths in self.unique:
            values = [at(document, path) for path in paths]
            for other in self.documents.values():
                if other["_id"] != key and [at(other, path) for path in paths] == values:
                    raise DuplicateKeyError(f"{self.name} has {values}", _DUPLICATE)
        before = self.documents.get(key)
        self.documents[key] = document
        if before != document:
            self.database.note_change(self.name, before, document)

    def insert_one(self, document: Document) -> Done:
        """Insert; raises `DuplicateKeyError`."""
        with self.database.lock:
            self._store(_plain(document), new=True)
        return Done()

    def insert_many(self, documents: Sequence[Document | RawBSONDocument], *, ordered: bool = True) -> Done:
        """Insert all but existing documents; raises `BulkWriteError` if there are some."""
        failed = []
        with self.database.lock:
            for index, document in enumerate(documents):
                try:
                    self._store(_plain(document), new=True)
                except DuplicateKeyError:
                    failed.append({"index": index, "code": _DUPLICATE})
        if failed:
            raise BulkWriteError({"writeErrors": failed})
        return Done()

    def _write(self, query: Mapping[str, Any], update: Any, *, upsert: bool, many: bool) -> Done:
        with self.database.lock:
            matching = self._those(query)
            matching = matching if many else matching[:1]
            now, modified = self.database.now(), 0
            for document in matching:
                after = updated(document, update, now)
                modified += after != document
                self._store(after, new=False)
            if matching or not upsert:
                return Done(len(matching), modified)
            fresh = updated(_equal(query), update, now, inserting=True)
            self._store(fresh, new=True)
            return Done(upserted=fresh["_id"])

    def update_one(self, query: Mapping[str, Any], update: Any, *, upsert: bool = False) -> Done:
        """Update the first that matches."""
        return self._write(query, update, upsert=upsert, many=False)

    def update_many(self, query: Mapping[str, Any], update: Any, *, upsert: bool = False, hint: Any = None) -> Done:
        """Update all that match."""
        return self._write(query, update, upsert=upsert, many=True)

    def replace_one(self, query: Mapping[str, Any], document: Document, *, upsert: bool = False) -> Done:
        """Replace, or insert, by key."""
        with self.database.lock:
            if self._those(query) or upsert:
                self._store(_plain(document), new=False)
        return Done()

    def find_one_and_update(
        self, query: Mapping[str, Any], update: Any, projection: Mapping[str, int] | None = None, **options: object
    ) -> Document | None:
        """Update the first that matches, and return it afterwards."""
        with self.database.lock:
            matching = self._those(query)
            if not matching:
                return None
            self._write({"_id": matching[0]["_id"]}, update, upsert=False, many=False)
            return projected(self.documents[matching[0]["_id"]], projection)

    def delete_one(self, query: Mapping[str, Any]) -> Done:
        """Delete the first that matches."""
        return self._delete(query, 1)

    def delete_many(self, query: Mapping[str, Any], **options: object) -> Done:
        """Delete all that match."""
        return self._delete(query, None)

    def _delete(self, query: Mapping[str, Any], most: int | None) -> Done:
        with self.database.lock:
            gone = self._those(query)[:most]
            for document in gone:
                del self.documents[document["_id"]]
        return Done(deleted=len(gone))

    def bulk_write(self, writes: Sequence[Any], *, ordered: bool = True) -> Done:
        """Several writes, one after another."""
        total = Done()
        with self.database.lock:
            for write in writes:
                if isinstance(write, InsertOne):
                    self.insert_one(write._doc)
                    continue
                if isinstance(write, DeleteOne):
                    total.deleted_count += self.delete_one(write._filter).deleted_count
                    continue
                done = self._write(
                    write._filter, write._doc, upsert=bool(write._upsert), many=isinstance(write, UpdateMany)
                )
                assert isinstance(write, (UpdateOne, UpdateMany))
                total.matched_count += done.matched_count
                total.modified_count += done.modified_count
        return total

    # aggregating

    def aggregate(self, pipeline: Sequence[Mapping[str, Any]], **options: object) -> Cursor:
        """Run the stages that the stores use."""
        with self.database.lock:
            documents = [
                projected(document, None)
                for document in sorted(self.documents.values(), key=lambda each: rank(each["_id"]))
            ]
            return Cursor(self._staged(documents, pipeline), None)

    def _staged(self, documents: list[Document], pipeline: Sequence[Mapping[str, Any]]) -> list[Document]:
        now = self.database.now()
        for stage in pipeline:
            ((operator, operand),) = stage.items()
            match operator:
                case "$match":
                    test = self.database.test(operand)
                    documents = [document for document in documents if test(document, now)]
                case "$sort":
                    documents = list(Cursor(documents, None).sort(list(operand.items())))
                case "$limit":
                    documents = documents[:operand]
                case "$set":
                    documents = [updated(document, [stage], now) for document in documents]
                case "$project":
                    documents = [_computed(document, operand, now) for document in documents]
                case "$unwind":
                    path = operand[1:]
                    documents = [{**document, path: each} for document in documents for each in document[path]]
                case "$group":
                    documents = _grouped(documents, operand, now)
                case "$facet":
                    documents = [{name: self._staged(documents, stages) for name, stages in operand.items()}]
                case "$unionWith":
                    other = self.database[operand["coll"]]
                    documents = [*documents, *other.aggregate(operand["pipeline"])]
                case _:
                    raise NotImplementedError(operator)
        return documents


def _plain(document: Document | RawBSONDocument) -> Document:
    plain: Document = bson.decode(document.raw) if isinstance(document, RawBSONDocument) else dict(copied(document))
    plain.setdefault("_id", ObjectId())
    return plain


def _equal(query: Mapping[str, Any]) -> Document:
    """Return the fields that an upsert takes from its filter."""
    return {key: value for key, value in query.items() if not key.startswith("$") and not isinstance(value, dict)}


def _computed(document: Document, fields: Mapping[str, Any], now: datetime) -> Document:
    kept = projected(document, {key: one for key, one in fields.items() if one in (0, 1) and not isinstance(one, bool)})
    for key, expression in fields.items():
        if isinstance(expression, (dict, str)):
            value = evaluated(expression, document, now)
            if value is not MISSING:
                kept[key] = value
    return kept


_ACCUMULATED: Final[Mapping[str, Callable[[list[Any]], Any]]] = {
    "$sum": sum,
    "$min": lambda values: min(values, key=_in_order),
    "$max": lambda values: max(values, key=_in_order),
    "$addToSet": lambda values: list(dict.fromkeys(values)),
}


def _in_order(value: Any) -> Any:
    """Return what orders values of one kind; documents by their fields, one after another."""
    return tuple(value.items()) if isinstance(value, dict) else value


def _grouped(documents: list[Document], fields: Mapping[str, Any], now: datetime) -> list[Document]:
    groups: dict[str, tuple[Any, list[Document]]] = {}
    for document in documents:
        key = evaluated(fields["_id"], document, now)
        groups.setdefault(repr(key), (key, []))[1].append(document)
    rows = []
    for key, members in groups.values():
        row: Document = {"_id": key}
        for name, spec in fields.items():
            if name != "_id":
                ((operator, operand),) = spec.items()
                values = [evaluated(operand, member, now) for member in members]
                row[name] = _ACCUMULATED[operator](values)
        rows.append(row)
    return rows


class MemoryDatabase:
    """Collections by name; `now` is the server's clock."""

    def __init__(self, name: str, now: Callable[[], datetime]) -> None:
        self.name = name
        self.now = now
        self.lock = RLock()
        self.changes: list[tuple[int, Document | None, Document]] = []
        self._collections: dict[str, MemoryCollection] = {}
        self._tests: dict[str, Test] = {}
        self._ticks = 0

    def test(self, query: Mapping[str, Any]) -> Test:
        """Return a compiled filter; the stores repeat the same ones."""
        key = repr(query)
        known = self._tests.get(key)
        if known is None:
            if len(self._tests) > 5_000:
                self._tests.clear()
            known = self._tests[key] = compiled(query)
        return known

    def __getitem__(self, name: str) -> MemoryCollection:
        if name not in self._collections:
            self._collections[name] = MemoryCollection(self, name)
        return self._collections[name]

    __getattr__ = __getitem__

    def get_collection(self, name: str, **options: object) -> MemoryCollection:
        """Return the collection of that name."""
        return self[name]

    def with_options(self, *options: object, **more: object) -> MemoryDatabase:
        """Return the collection: there is one kind."""
        return self

    def list_collection_names(self) -> list[str]:
        """Return the collections used so far."""
        return list(self._collections)

    def create_collection(self, name: str, **options: object) -> MemoryCollection:
        """Return the collection of that name."""
        return self[name]

    def note_change(self, name: str, before: Document | None, after: Document) -> None:
        """Note a change for the streams."""
        if name == "users":
            self._ticks += 1
            self.changes.append((self._ticks, before, after))

    def command(self, command: str) -> Document:
        """Answer `ping` with the operation time and `hello` with the server's clock."""
        return {"operationTime": Timestamp(1, self._ticks), "localTime": self.now()}  # of the last change of a user

    def clear(self) -> None:
        """Empty the database; keep the indexes."""
        self.changes.clear()
        self._ticks = 0
        for collection in self._collections.values():
            collection.documents.clear()
