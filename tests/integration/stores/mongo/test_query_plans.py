"""No named query scans a collection, and each uses its index."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from pymongo.database import Database

import engine.stores
from engine.domain.document import Document
from engine.domain.keys import user_key
from engine.stores.mongo.query_plans import QUERIES, explain

for _module in pkgutil.walk_packages(engine.stores.__path__, "engine.stores."):
    importlib.import_module(_module.name)

STORES = {
    store.NAME: store
    for name in [module.name for module in pkgutil.walk_packages(engine.stores.__path__, "engine.stores.")]
    for store in vars(importlib.import_module(name)).values()
    if isinstance(store, type) and hasattr(store, "INDEXES") and hasattr(store, "NAME")
}


@pytest.fixture
def filled(database: Database[Document]) -> Database[Document]:
    """A database with every collection, its indexes and some documents, so that the planner has a choice."""
    for name, store in STORES.items():
        for index in store.INDEXES:
            database[name].create_index(**{k: v for k, v in index.items() if k != "keys"}, keys=index["keys"])
        database[name].insert_many([{"_id": f"{user_key('w', f'hh-{n}')}/{n}", "n": "x", "t": n} for n in range(100)])
    return database


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_a_named_query_uses_its_index_and_scans_no_collection(filled: Database[Document], name: str) -> None:
    plan = explain(filled, QUERIES[name])
    assert not plan.scans
    assert QUERIES[name].index in plan.indexes


def test_the_stores_of_users_events_and_lists_have_named_queries() -> None:
    assert {"users", "events", "lists", "imports"} <= {name.split(".")[0] for name in QUERIES}


def test_a_query_that_scans_is_detected(filled: Database[Document]) -> None:
    from engine.stores.mongo.query_plans import ExplainedQuery, find_command

    assert explain(filled, ExplainedQuery("x", "none", find_command("users", {"email": "x"}))).scans
