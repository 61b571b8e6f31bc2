"""An unreachable, frozen, full or emptied cache costs time: no reader sees it, and the feed is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest
from pymongo.database import Database

from engine.domain.document import Document
from engine.domain.keys import HIGHEST, user_key
from engine.stores.user_cache import connection
from engine.stores.user_cache.buckets import Refreshed
from engine.telemetry.events import listening
from tests.support.cache_world import CacheWorld

rig = SimpleNamespace(**run_path(str(Path(__file__).parents[3] / "stock" / "rig.py")))
U = user_key("shop", "u1")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the times, so that an outage is noticed and over soon."""
    monkeypatch.setattr(connection, "SOCKET_SECONDS", 0.3)
    monkeypatch.setattr(connection, "COOL_DOWN", 0.2)


@pytest.fixture
def start(tmp_path: Path, database: Database[Document]) -> Iterator[Callable[..., tuple[Any, CacheWorld]]]:
    """Yield a separate Valkey, and a cache on it."""
    made: list[Any] = []

    def begin(*options: str, pause: timedelta = timedelta(seconds=10)) -> tuple[Any, CacheWorld]:
        valkey = rig.Valkey(tmp_path / f"cache{len(made)}", "--appendonly", "no", *options)
        world = CacheWorld(database, valkey.url, pause=pause)
        made.extend((world, valkey))
        return valkey, world

    yield begin
    for request in made:
        request.close()


def test_a_cache_killed_during_a_scan_is_used_again_when_back(quick: None, start: Any) -> None:
    valkey, world = start()
    world.fill(3_000)
    layout = world.adopt()
    world.cache.warm(layout)
    users: set[str] = set()
    with listening() as events:
        for number, rows in enumerate(world.cache.scan(layout, "0", HIGHEST, 200)):
            users |= {row.key for row in rows.rows}
            if number == 4:
                valkey.kill()
        assert users == set(world.stored())
        assert world.read(layout) == world.stored()
        assert world.refresh(layout, U) == Refreshed(reached=False)
        assert len(events.of("cache.away")) == 1
        assert events.of("cache.back") == []
        valkey.start()
        rig.wait_for(lambda: world.cache.read(layout, "0", HIGHEST).changes is not None, what="the cache's answer")
        assert world.read(layout) == world.stored()
        assert len(world.buckets()) == layout.buckets
        assert world.refresh(layout, U).reached, "a server that has forgotten the scripts is given them again"
        assert len(events.of("cache.away")) == len(events.of("cache.back")) == 1


def test_without_a_cache_server_mongodb_serves(quick: None, start: Any) -> None:
    valkey, world = start()
    valkey.kill()
    world.fill(500)
    layout = world.adopt()
    with listening() as events:
        assert world.read(layout) == world.stored()
        assert world.cache.warm(layout) == 0
        assert world.cache.revisions(layout, [U]) == {U: None}
        assert world.cache.memory() is None
        assert not world.cache.drop(layout, [U]).reached
        assert [occurrence.fields["reason"] for occurrence in events.of("cache.away")] == ["ConnectionError"]


def test_only_one_reader_at_a_time_tries_a_frozen_cache(quick: None, start: Any) -> None:
    valkey, world = start()
    world.fill(500)
    layout = world.adopt()
    world.cache.warm(layout)
    valkey.freeze()
    stored = world.stored()
    results: list[bool] = []
    readers = [threading.Thread(target=lambda: results.append(world.read(layout) == stored)) for _ in range(8)]
    with listening() as events:
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert results == [True] * 8
        assert [occurrence.fields["reason"] for occurrence in events.of("cache.away")] == ["TimeoutError"]
        valkey.thaw()
        rig.wait_for(lambda: world.cache.read(layout, "0", HIGHEST).hits, what="a hit")
        events.wait("cache.back")


def test_the_answer_to_a_timed_out_query_is_never_read_by_the_next(quick: None, start: Any) -> None:
    valkey, world = start()
    world.fill(1_000)
    layout = world.adopt()
    world.cache.warm(layout)
    for _ in range(3):
        scan = world.cache.scan(layout, "0", HIGHEST, 100)
        next(scan)
        valkey.freeze()
        next(scan)
        next(scan)
        valkey.thaw()
        rest = {row.key for rows in scan for row in rows.rows}
        assert rest <= set(world.stored())
        assert world.read(layout) == world.stored()


def revisions(world: CacheWorld) -> dict[str, int]:
    return {raw["_id"]: raw["rev"] for raw in world.database.users.find({}, {"rev": 1})}


def test_a_cache_of_ten_megabytes_evicts_and_is_right(quick: None, start: Any) -> None:
    _, world = start("--maxmemory", "10mb", "--maxmemory-policy", "allkeys-lru", pause=timedelta(milliseconds=20))
    world.fill(12_000)
    world.database.users.update_many({}, {"$set": {"a.class": "x" * 800}})
    layout = world.adopt()
    with listening() as events:
        expected = revisions(world)
        for _ in range(2):
            assert {row.key: row.rev for rows in world.batches(layout) for row in rows.rows} == expected
        memory = world.cache.memory()
        assert memory is not None
        assert memory.evicted > 0
        assert memory.used <= memory.limit * 1.1
        assert 0 < len(world.buckets()) < layout.buckets
        world.add("u1", email="new@x.example")
        assert world.refresh(layout, U).reached
        found = {row.key: row.rev for rows in world.batches(layout) for row in rows.rows}
        assert found == revisions(world) != expected
        assert [occurrence.fields["reason"] for occurrence in events.of("cache.full")] == ["evicts"]
        assert events.of("cache.away") == []


def test_a_full_cache_that_evicts_nothing_refuses_and_is_right(quick: None, start: Any) -> None:
    valkey, world = start("--maxmemory", "100mb", "--maxmemory-policy", "noeviction", pause=timedelta(milliseconds=1))
    world.fill(1_000)
    layout = world.adopt()
    half = layout.bound(layout.buckets // 2)
    world.cache.warm(layout, until=half)
    used = valkey.client.info("memory")["used_memory"]
    valkey.client.config_set("maxmemory", used // 2)
    with listening() as events:
        assert world.read(layout) == world.stored()
        assert len(world.buckets()) == layout.buckets // 2
        assert [occurrence.fields["reason"] for occurrence in events.of("cache.full")] == ["refuses"]
        changed = world.add(*(f"u{n}" for n in range(30)), email="new@x.example")
        assert world.refresh(layout, *changed).reached, "what is cached stays right"
        assert world.read(layout) == world.stored()
        valkey.client.config_set("maxmemory", "100mb")
        assert world.read(layout) == world.stored()
        assert len(world.buckets()) == layout.buckets
        rig.wait_for(
            lambda: world.redis.flushdb() and world.read(layout) and events.of("cache.fits"), what="enough memory"
        )
        assert events.of("cache.away") == []


def test_a_refusing_server_counts_as_unreachable(quick: None, start: Any) -> None:
    valkey, world = start()
    world.fill(300)
    layout = world.adopt()
    world.cache.warm(layout)
    world.add("u1", email="new@x.example")
    valkey.client.acl_setuser(
        "default", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-hvals", "-evalsha"]
    )
    with listening() as events:
        assert world.read(layout) == world.stored()
        assert not world.refresh(layout, U).reached
        assert [occurrence.fields["reason"] for occurrence in events.of("cache.away")] == ["NoPermissionError"]
