"""The user cache returns what MongoDB has: cold, warm, half evicted, of another epoch, flushed during a scan."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from pymongo.database import Database

from engine.domain.document import Document
from engine.domain.keys import HIGHEST, cut, hash_prefix, suffix_of_user, user_key
from engine.stores.user_cache.layout import depth_for
from tests.support.cache_world import CacheWorld


@pytest.fixture
def world(database: Database[Document], cache_url: str) -> Iterator[CacheWorld]:
    made = CacheWorld(database, cache_url)
    yield made
    made.close()


def test_a_cold_and_a_warm_cache_return_what_mongodb_has(world: CacheWorld) -> None:
    world.fill(3_000)
    layout = world.adopt()
    assert world.read(layout) == world.stored()
    assert world.cache.use.hits == 0
    assert world.read(layout) == world.stored()
    assert world.cache.use.hits == world.cache.use.misses == 3_000
    assert len(world.buckets()) == layout.buckets == 64
    assert all(0 < world.redis.ttl(key) <= 7 * 86_400 for key in world.buckets())


def test_a_scan_with_read_ahead_yields_the_same_batches(world: CacheWorld) -> None:
    world.fill(3_000)
    layout = world.adopt()
    for _ in ("cold", "warm"):
        whole = list(world.cache.scan(layout, "0", HIGHEST, 500))
        assert [batch.until for batch in whole] == [batch.until for batch in world.batches(layout, limit=500)]
        assert {row.key for batch in whole for row in batch.rows} == set(world.stored())
    assert len(whole) == 64 // (500 // 64) + 1


def test_an_abandoned_scan_leaves_no_answer_unread(world: CacheWorld) -> None:
    world.fill(2_000)
    layout = world.adopt()
    assert world.cache.warm(layout) == layout.buckets
    for _ in range(3):
        scan = world.cache.scan(layout, "0", HIGHEST, 200)
        next(scan)
        scan.close()
        assert world.read(layout) == world.stored()
    assert world.cache.use.misses == 0


def test_evicted_buckets_are_loaded_again_and_the_others_are_not(world: CacheWorld) -> None:
    world.fill(3_000)
    layout = world.adopt()
    world.cache.warm(layout)
    rnd = random.Random(7)
    gone = rnd.sample(world.buckets(), 16)
    world.redis.delete(*gone)
    assert world.read(layout) == world.stored()
    use = world.cache.use
    assert use.loads == 16
    assert use.hits + use.misses == 3_000
    assert use.hits > 1_000
    assert len(world.buckets()) == layout.buckets


def test_an_empty_bucket_is_known_to_be_empty(world: CacheWorld) -> None:
    world.fill(500)
    layout = world.adopt()
    first, until = layout.bound(1), layout.bound(2)
    world.database.users.delete_many({"_id": {"$gte": f"shop/{first}", "$lt": f"shop/{until}"}})
    for hits in (0, 0):
        rows = world.cache.read(layout, first, until)
        assert (list(rows.rows), rows.until, rows.hits) == ([], until, hits)
    assert world.cache.use.loads == 1
    assert world.redis.hgetall(layout.bucket_key(1)) == {b"": b""}


def test_a_workspace_without_users_is_one_empty_bucket(world: CacheWorld) -> None:
    layout = world.adopt()
    assert layout.buckets == 1
    assert world.read(layout) == {}
    assert world.cache.use.loads == 1
    world.add("first")
    world.refresh(layout, user_key("shop", "first"))
    assert world.read(layout) == world.stored()
    assert world.cache.use.loads == 1


@pytest.mark.parametrize("seed", range(5))
def test_any_bounds_yield_the_users_between_them(world: CacheWorld, seed: int) -> None:
    world.fill(400, seed)
    layout = world.adopt()
    rnd = random.Random(seed)
    suffixes = sorted(suffix_of_user(key) for key in world.stored())
    edges = [layout.bound(bucket) for bucket in range(layout.buckets + 1)]
    bounds = ["0", "00000000", HIGHEST, *edges, *(edge for pair in cut(7) for edge in pair)]
    for _ in range(60):
        near = [rnd.choice(suffixes), rnd.choice(suffixes) + "\0", rnd.choice(suffixes)[:8], rnd.choice(bounds)]
        first, until = sorted((rnd.choice(near), rnd.choice(near)))
        assert world.read(layout, first, until, rnd.choice([1, 64, 200, 1_000])) == world.stored(first, until)
    assert world.cache.read(layout, "8", "8").until == "8"


@pytest.mark.parametrize("depth", [0, 1, 4, 9])
def test_users_at_the_edges_of_buckets_are_in_one_bucket_each(world: CacheWorld, depth: int) -> None:
    """The test cannot choose ids by hash, so it makes keys with the hash it needs."""
    step = (1 << 32) >> depth
    places = sorted({place for n in range(min(1 << depth, 16)) for place in (n * step, (n + 1) * step - 1)})
    world.database.users.insert_many(
        [{"_id": f"shop/{hash_prefix(place)}/u{place}", "w": "shop", "u": f"u{place}", "rev": 1} for place in places]
    )
    world.database.cache_layouts.delete_many({})
    layout = world.adopt()
    object.__setattr__(layout, "depth", depth)
    for _ in ("cold", "warm"):
        for bucket in range(layout.buckets):
            rows = world.read(layout, layout.bound(bucket), layout.bound(bucket + 1))
            assert rows == world.stored(layout.bound(bucket), layout.bound(bucket + 1))
        assert world.read(layout) == world.stored()


def test_a_flush_in_the_middle_of_a_scan_costs_loads_and_no_user(world: CacheWorld) -> None:
    world.fill(3_000)
    layout = world.adopt()
    world.cache.warm(layout)
    revisions = {}
    for number, rows in enumerate(world.cache.scan(layout, "0", HIGHEST, 300)):
        revisions |= {row.key: row for row in rows.rows}
        if number == 3:
            world.redis.flushdb()
    assert set(revisions) == set(world.stored())
    assert world.read(layout) == world.stored()


def test_another_epoch_sees_nothing_of_this_one(world: CacheWorld) -> None:
    world.fill(300)
    old = world.adopt(1)
    world.cache.warm(old)
    world.database.users.update_many({}, [{"$set": {"rev": {"$add": ["$rev", 1]}, "email": "new@x.example"}}])
    new = world.adopt(2)
    assert new.epoch != old.epoch
    assert world.read(new) == world.stored()
    assert world.read(old) != world.stored()


def test_an_invalid_row_is_discarded_and_read_again(world: CacheWorld) -> None:
    world.fill(300)
    layout = world.adopt()
    world.cache.warm(layout)
    for rubbish in (b"\x01", b"\x95\xa1k\x01\xc2\x90\xa1x", b"\xc1"):
        world.redis.hset(layout.bucket_key(0), "x", rubbish)
        assert world.read(layout) == world.stored()
        assert b"x" not in world.redis.hkeys(layout.bucket_key(0))
    world.redis.hdel(layout.bucket_key(1), "")
    assert world.read(layout) == world.stored()


def test_the_depth_puts_about_64_users_into_a_bucket() -> None:
    for users, depth in ((0, 0), (64, 0), (100, 1), (128, 1), (1_000_000, 14), (1 << 40, 24)):
        assert depth_for(users) == depth
    assert all(45 < users / (1 << depth_for(users)) < 91 for users in range(64, 1_000_000, 997))


def test_two_workspaces_with_one_prefix_share_no_bucket(world: CacheWorld) -> None:
    world.fill(100)
    layout = world.adopt()
    other = [{**raw, "_id": raw["_id"].replace("shop/", "shop2/")} for raw in world.database.users.find()]
    world.database.users.insert_many(other)
    world.cache.warm(layout)
    assert world.read(layout) == world.stored()
    assert all(key.startswith("shop/") for key in world.read(layout))
