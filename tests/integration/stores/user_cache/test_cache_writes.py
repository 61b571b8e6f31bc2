"""The feed's writes to the user cache: newer rows replace older ones, and a load of older data is never stored."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pymongo.database import Database

from engine.domain.document import Document
from engine.domain.keys import HIGHEST, suffix_of_user, user_key
from engine.stores.user_cache.buckets import Refreshed
from engine.stores.user_cache.connection import CacheServer, cache_client, unheard
from engine.stores.user_cache.layout import Layout
from engine.stores.user_cache.loader import BucketLoader
from engine.stores.user_cache.stats import MemoryWatch
from tests.support.cache_world import CacheWorld

U = user_key("shop", "u1")


@pytest.fixture
def world(database: Database[Document], cache_url: str) -> Iterator[CacheWorld]:
    made = CacheWorld(database, cache_url)
    yield made
    made.close()


@pytest.fixture
def loader(world: CacheWorld, cache_url: str) -> Iterator[BucketLoader]:
    """Another loading process, one step at a time."""
    server = CacheServer(cache_client(cache_url))
    yield BucketLoader(server, world.users, MemoryWatch(server, unheard))
    server.close()


def bucket(layout: Layout, key: str = U) -> int:
    return layout.bucket_of(suffix_of_user(key))


def test_a_change_is_refreshed_in_place(world: CacheWorld) -> None:
    world.fill(300)
    layout = world.adopt()
    world.cache.warm(layout)
    world.add("u1", email="new@x.example")
    (document,) = world.documents([U])
    assert world.cache.refresh(layout, [document]) == Refreshed(reached=True, written=1)
    assert world.cache.revisions(layout, [U]) == {U: document["rev"]}
    assert world.read(layout) == world.stored()
    assert world.cache.use.misses == 0


def test_a_new_user_appears_in_its_bucket(world: CacheWorld) -> None:
    world.fill(300)
    layout = world.adopt()
    world.cache.warm(layout)
    keys = world.add("new1", "new2")
    assert world.refresh(layout, *keys).written == 2
    assert world.read(layout) == world.stored()
    assert world.cache.use.misses == 0


def test_an_older_or_equal_document_changes_nothing(world: CacheWorld) -> None:
    world.add("u1", email="1@x.example")
    layout = world.adopt()
    world.cache.warm(layout)
    (old,) = world.documents([U])
    world.add("u1", email="2@x.example")
    assert world.refresh(layout, U).written == 1
    assert world.cache.refresh(layout, [old]) == Refreshed(reached=True, written=0)
    assert world.refresh(layout, U).written == 0
    assert world.read(layout) == world.stored()


def test_a_refresh_never_makes_a_bucket(world: CacheWorld) -> None:
    world.add("u1")
    layout = world.adopt()
    assert world.refresh(layout, U) == Refreshed(reached=True, written=0)
    assert world.buckets() == []
    assert world.cache.revisions(layout, [U]) == {U: None}


def test_a_deleted_user_stays_deleted_despite_late_writes_and_may_be_created_again(world: CacheWorld) -> None:
    world.add("u1", email="1@x.example")
    layout = world.adopt()
    world.cache.warm(layout)
    (before,) = world.documents([U])
    world.users.delete(U)
    world.refresh(layout, U)
    world.cache.refresh(layout, [before])
    assert world.read(layout) == world.stored()
    (row,) = world.cache.read(layout, "0", HIGHEST).rows
    assert row.deleted
    world.add("u1", email="2@x.example")
    world.refresh(layout, U)
    (row,) = world.cache.read(layout, "0", HIGHEST).rows
    assert not row.deleted
    assert world.read(layout) == world.stored()
    assert world.cache.use.misses == 0


def test_a_missing_document_drops_its_bucket_and_voids_its_load(world: CacheWorld, loader: BucketLoader) -> None:
    world.fill(300)
    layout = world.adopt()
    world.cache.warm(layout)
    world.database.users.delete_one({"_id": U})
    assert world.cache.drop(layout, [U]) == Refreshed(reached=True)
    assert layout.bucket_key(bucket(layout)) not in world.buckets()
    assert U not in world.read(layout)
    assert world.read(layout) == world.stored()
    world.redis.delete(layout.bucket_key(bucket(layout)))
    leased = loader.lease(layout, [bucket(layout)])
    assert world.cache.drop(layout, [U]).voided == 1
    assert loader.store(layout, leased, loader.fetch(layout, [bucket(layout)])) == 0


def test_the_revision_of_an_unknown_user_in_a_whole_bucket_is_zero(world: CacheWorld) -> None:
    world.add("u1")
    layout = world.adopt()
    world.cache.warm(layout)
    (document,) = world.documents([U])
    stranger = user_key("shop", "nobody")
    assert world.cache.revisions(layout, [stranger, U]) == {stranger: 0, U: document["rev"]}


@pytest.mark.parametrize("change", ["new value", "new user", "deletion"])
def test_a_load_read_before_a_refresh_is_not_stored(world: CacheWorld, loader: BucketLoader, change: str) -> None:
    world.add("u1", email="1@x.example")
    layout = world.adopt()
    leased = loader.lease(layout, [0])
    read = loader.fetch(layout, [0])
    if change == "deletion":
        world.users.delete(U)
    changed = world.add("u2" if change == "new user" else "u1", email="2@x.example") if change != "deletion" else [U]
    assert world.refresh(layout, *changed) == Refreshed(reached=True, written=0, voided=1)
    assert loader.store(layout, leased, read) == 0
    assert world.buckets() == []
    assert world.read(layout) == world.stored()
    assert world.read(layout) == world.stored()
    assert world.cache.use.loads == 1


def test_a_load_stored_before_a_refresh_is_refreshed(world: CacheWorld, loader: BucketLoader) -> None:
    world.add("u1", email="1@x.example")
    layout = world.adopt()
    leased = loader.lease(layout, [0])
    read = loader.fetch(layout, [0])
    world.add("u1", email="2@x.example")
    assert loader.store(layout, leased, read) == 1
    assert world.read(layout) != world.stored()
    assert world.refresh(layout, U).written == 1
    assert world.read(layout) == world.stored()


def test_a_refresh_voids_the_lease_of_its_own_bucket_only(world: CacheWorld, loader: BucketLoader) -> None:
    world.fill(300)
    layout = world.adopt()
    buckets = list(range(layout.buckets))
    leased = loader.lease(layout, buckets)
    assert leased.buckets == set(buckets)
    read = loader.fetch(layout, buckets)
    world.add("u1", email="2@x.example")
    world.refresh(layout, U)
    assert loader.store(layout, leased, read) == layout.buckets - 1
    assert world.read(layout) == world.stored()


def test_concurrent_loaders_store_once_and_both_return_the_users(world: CacheWorld, loader: BucketLoader) -> None:
    world.fill(300)
    layout = world.adopt()
    leased = loader.lease(layout, [0, 1])
    assert world.read(layout) == world.stored()
    assert world.cache.use.loads == layout.buckets - 2
    assert world.cache.use.unstored == 2
    assert loader.store(layout, leased, loader.fetch(layout, [0, 1])) == 2
    world.read(layout)
    assert world.cache.use.hits == 300


def test_a_loader_whose_lease_ran_out_overwrites_nothing(world: CacheWorld, loader: BucketLoader) -> None:
    world.add("u1", email="1@x.example")
    layout = world.adopt()
    leased = loader.lease(layout, [0])
    read = loader.fetch(layout, [0])
    world.redis.delete(layout.lease_key(0))  # as its expiry does
    world.add("u1", email="2@x.example")
    world.refresh(layout, U)
    assert world.cache.warm(layout) == 1
    assert loader.store(layout, leased, read) == 0
    other = loader.lease(layout, [0])
    assert loader.store(layout, other, read) == 0, "a whole bucket is not written over"
    assert world.read(layout) == world.stored()


def test_a_late_loader_leaves_no_lease(world: CacheWorld, loader: BucketLoader) -> None:
    """The loader read before another one stored; once that bucket is evicted, the next reader may load it."""
    layout = world.adopt()
    world.cache.warm(layout)
    late = loader.lease(layout, [0])
    assert late.buckets == {0}
    assert loader.store(layout, late, loader.fetch(layout, [0])) == 0
    world.redis.delete(layout.bucket_key(0))
    assert loader.lease(layout, [0]).buckets == {0}


def test_a_lease_expires(world: CacheWorld, loader: BucketLoader) -> None:
    layout = world.adopt()
    loader.lease(layout, [0])
    assert 0 < world.redis.ttl(layout.lease_key(0)) <= 20


def test_a_large_bucket_is_stored_whole(world: CacheWorld) -> None:
    """Lua passes a thousand arguments at a time: a workspace may outgrow its depth."""
    layout = world.adopt()
    assert layout.buckets == 1
    world.fill(2_700)
    assert world.read(layout) == world.stored()
    assert world.redis.hlen(layout.bucket_key(0)) == 2_701
    assert world.read(layout) == world.stored()
    assert world.cache.use.hits == 2_700


def test_the_change_count_rises_with_every_refreshed_row_and_never_repeats(world: CacheWorld) -> None:
    world.add("u1")
    layout = world.adopt()

    def changes() -> int | None:
        return world.cache.read(layout, "0", HIGHEST).changes

    assert changes() == 0
    world.refresh(layout, U)
    first = changes()
    assert first
    assert changes() == first
    world.refresh(layout, U, *world.add("u2"))
    assert changes() == first + 2
    world.cache.drop(layout, [U])
    assert changes() == first + 3
    world.redis.delete(layout.changes_key)
    world.refresh(layout, U)
    assert (changes() or 0) > first + 3
