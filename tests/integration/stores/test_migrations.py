"""Any number of processes may start at once on an empty or an older database: all succeed."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import pytest
from elasticsearch import Elasticsearch
from pymongo import MongoClient
from pymongo.database import Database

from engine.stores.migrations import COLLECTIONS, migrate_mongo, migrate_search
from engine.stores.mongo.client import mongo_client as connect
from engine.stores.mongo.policy_versions import PolicyVersions
from engine.stores.search.client import elastic_client
from engine.stores.search.user_index import UserIndex

AT_ONCE: Final = 8
ROUNDS: Final = 20


@pytest.fixture
def clients(services: Any) -> Iterator[list[MongoClient[dict[str, Any]]]]:
    """Yield one client for each process that starts."""
    made = [connect(services.mongo_url) for _ in range(AT_ONCE)]
    for client in made:
        client.admin.command("ping")
    yield made
    for client in made:
        client.close()


@pytest.fixture
def empty(mongo_client: MongoClient[dict[str, Any]]) -> Iterator[Callable[[], str]]:
    """Yield a function that names databases that do not exist yet; drop them afterwards."""
    names: list[str] = []

    def name() -> str:
        names.append(f"test_{uuid.uuid4().hex[:16]}")
        return names[-1]

    yield name
    for label in names:
        mongo_client.drop_database(label)


def at_once(jobs: list[Callable[[], Any]]) -> list[Any]:
    """Start jobs at the same moment; raise the first error of any of them."""
    barrier = threading.Barrier(len(jobs))

    def after_all(job: Callable[[], Any]) -> Any:
        barrier.wait(30)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(after_all, jobs))


def indexes(database: Database[dict[str, Any]]) -> int:
    return sum(len(database[name].index_information()) - 1 for name in COLLECTIONS)


def start(database: Database[dict[str, Any]]) -> int:
    """Do what each process does before its work: migrate, and record the policies in force."""
    count = migrate_mongo(database)
    PolicyVersions(database).record("v1", {"lanes": []}, 0)
    return count


def test_concurrent_starts_on_an_empty_or_older_database_all_succeed(
    clients: list[MongoClient[dict[str, Any]]], empty: Callable[[], str]
) -> None:
    name = empty()
    for number in range(ROUNDS):
        if number % 5 == 0:
            name = empty()
        else:  # an older version lacked these
            for missing in random.sample(COLLECTIONS, 3):
                clients[0][name].drop_collection(missing)
            clients[0][name]["users"].drop_indexes()
        counts = at_once([partial(start, client[name]) for client in clients])
        assert len(set(counts)) == 1, "every process relies on the same indexes"
        assert indexes(clients[0][name]) == counts[0]
        assert set(COLLECTIONS) <= set(clients[0][name].list_collection_names())


@pytest.mark.elastic
def test_concurrent_starts_create_one_users_index(services: Any, elastic: Elasticsearch, index_prefix: str) -> None:
    searches = [elastic_client(services.elastic_url) for _ in range(AT_ONCE)]
    for number in range(5):
        alias = f"{index_prefix}{number}"
        at_once([partial(migrate_search, UserIndex(client, alias)) for client in searches])
        assert len(elastic.indices.get(index=f"{alias}-*")) == 1
        assert elastic.indices.exists_index_template(name=alias)
    for client in searches:
        client.close()
