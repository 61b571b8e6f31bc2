"""Fixtures for integration tests: a whole engine without a broker."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from elasticsearch import Elasticsearch
from pymongo import MongoClient
from pymongo.database import Database

from engine.stores.migrations import migrate_mongo, migrate_search
from tests.support.installation import Installation
from tests.support.pipeline_world import World

Databases = list[Database[dict[str, Any]]]


@pytest.fixture(scope="session")
def migrated(mongo_client: MongoClient[dict[str, Any]]) -> Iterator[Databases]:
    """Yield a pool of empty databases with all indexes: creating the indexes is the slowest part of a test."""
    free: Databases = []
    yield free
    for database in free:
        mongo_client.drop_database(database.name)


@pytest.fixture
def make_world(
    migrated: Databases, mongo_client: MongoClient[dict[str, Any]], services: Any, tmp_path: Path
) -> Iterator[Callable[..., World]]:
    """Yield a function that makes worlds with their own settings (see `World`), each on an empty database."""
    made: list[World] = []

    def make(**more: Any) -> World:
        database = migrated.pop() if migrated else mongo_client[f"test_{uuid.uuid4().hex[:16]}"]
        migrate_mongo(database)
        with redis.Redis.from_url(services.broker_url) as broker:  # an earlier world left queues, a gate, rates
            for key in broker.scan_iter(match=f"*{database.name}*", count=1_000):
                broker.delete(key)
        world = World(database, services, tmp_path / f"world{len(made)}", **more)
        made.append(world)
        return world

    yield make
    for world in made:
        world.close()
        for name in world.database.list_collection_names():
            world.database[name].delete_many({})
        migrated.append(world.database)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """Return a whole engine on an empty database; see `tests/support/pipeline_world.py`."""
    return make_world()


@pytest.fixture
def reading(
    make_world: Callable[..., World], elastic: Elasticsearch, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """Yield a world with Elasticsearch and with a user cache that has small buckets."""
    for module in ("layout", "active_layouts"):
        monkeypatch.setattr(f"engine.stores.user_cache.{module}.USERS_PER_BUCKET", 4)
    world = make_world(reading=True, slice_users=25, batch={"candidates": [7, 20]})
    index = world.app.stores.user_index
    assert index is not None
    migrate_search(index)
    for request in world.database["index_requests"].find():  # index every user, as a feed does when it starts
        world.app.search_indexer.run(request["_id"])
    yield world
    elastic.indices.delete(index=f"{index.alias}-*")


@pytest.fixture
def installation(world: World, services: Any) -> Iterator[Installation]:
    """Yield the command line and real processes on `world`, with a short lease; see `tests/support/installation.py`."""
    made = Installation(world, services, {"TIDEGATE_ENGINE__LEASE": "5s", "TIDEGATE_ENGINE__RING_AGAIN": "5s"})
    yield made
    made.close()
