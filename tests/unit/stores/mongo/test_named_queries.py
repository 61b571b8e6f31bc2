"""The named queries of the stores: how many there are, and the index that each states."""

from __future__ import annotations

import importlib
import pkgutil

import engine.stores
from engine.stores.migrations import COLLECTIONS, INDEXES
from engine.stores.mongo import index_advisor
from engine.stores.mongo.query_plans import QUERIES

MODULES = [
    importlib.import_module(module.name) for module in pkgutil.walk_packages(engine.stores.__path__, "engine.stores.")
]
STATED = [(name, index) for module in MODULES for name, index in getattr(module, "NAMED", {}).items()]
"""Queries that state their index beside the store; those in `QUERIES` also have a sample for MongoDB to explain."""

COUNT = 97
"""Change it with the queries. Fewer found than written here: a module that the advisor no longer walks is missing."""


def _collection(name: str) -> str:
    """Return the collection that a query reads, as the index advisor finds it."""
    known, store = index_advisor.COLLECTIONS, name.partition(".")[0]
    return known.get(name) or known.get(store) or store


def test_the_number_of_named_queries_is_pinned() -> None:
    names = [*dict(STATED), *QUERIES]
    assert len(names) == len(set(names)) == COUNT
    assert len(STATED) == len(dict(STATED)), "two modules state an index for one query"


def test_each_named_query_states_an_index_that_migrations_create() -> None:
    stated = [(name, _collection(name), index) for name, index in STATED]
    stated += [(one.name, str(next(iter(one.command.values()))), one.index) for one in QUERIES.values()]
    for name, collection, indexes in stated:
        assert collection in COLLECTIONS, name
        created = {"_id_", *(one.document["name"] for one in INDEXES.get(collection, []))}
        for index in indexes.split(" or "):
            assert index in created, f"{name}: {collection} has no index {index}"
