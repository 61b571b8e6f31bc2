"""The feed decides what the user cache holds, and extends it when a campaign names more fields."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pymongo.database import Database

from engine.catalogue.catalogue import BUILTINS, Catalogue, EventType
from engine.catalogue.fields import Field
from engine.catalogue.values import FieldType
from engine.domain.document import Document
from engine.domain.keys import HIGHEST, user_key
from engine.domain.looks import FeedState
from engine.errors import ProgrammerError
from engine.stores.mongo.feed_position import FeedPosition
from engine.stores.user_cache import cache
from engine.stores.user_cache.active_layouts import CacheLayouts
from engine.stores.user_cache.cache import CachedUsers
from engine.stores.user_cache.layout import HELD_BY_DEFAULT, Held, held_at_first
from tests.support.cache_world import CATALOGUE, ORDER, CacheWorld

WIDE = replace(
    CATALOGUE,
    fields={**CATALOGUE.fields, **{f"x{n}": Field(f"x{n}", FieldType.INTEGER) for n in range(HELD_BY_DEFAULT)}},
)
NAMED = Held(("x3", "plan"), frozenset({"Opened"}))


@pytest.fixture
def world(database: Database[Document], cache_url: str) -> Iterator[CacheWorld]:
    made = CacheWorld(database, cache_url, WIDE)
    yield made
    made.close()


@pytest.fixture
def layouts(world: CacheWorld) -> CacheLayouts:
    """Another process."""
    return CacheLayouts(world.database, world.users, "t:")


def test_the_cache_is_not_read_before_the_feed_activates_a_layout(world: CacheWorld, layouts: CacheLayouts) -> None:
    assert layouts.layout(CATALOGUE, 1) is None
    assert layouts.want("shop", ["plan"], []) is True
    assert layouts.layout(CATALOGUE, 1) is None
    adopted = world.layouts.adopt(CATALOGUE, 1)
    read = layouts.layout(CATALOGUE, 1)
    assert read is not None
    assert (read.epoch, read.held) == (adopted.epoch, adopted.held)
    assert layouts.layout(CATALOGUE, 1) is read, "made once"
    other = layouts.layout(CATALOGUE, 2)
    assert other is not None
    assert other.epoch != read.epoch


def test_small_workspaces_cache_every_field_and_large_ones_those_of_campaigns() -> None:
    named = Held(("age",), frozenset({"Opened"}))
    held = held_at_first(CATALOGUE, named)
    assert set(held.fields) == set(CATALOGUE.fields)
    assert held.events == set(CATALOGUE.events)
    assert held.fields[:2] == ("age", "plan"), "what campaigns name, then what the workspace declares"
    assert held_at_first(WIDE, NAMED) == NAMED


def test_rows_are_read_up_to_the_last_requested_field(world: CacheWorld) -> None:
    world.fill(300)
    layout = world.layouts.adopt(CATALOGUE, 1, Held(("age", "orders"), frozenset()))
    whole = {row.key: row for rows in world.batches(layout) for row in rows.rows}
    for rows in world.cache.scan(layout, "0", HIGHEST, fields=["orders"]):
        for row in rows.rows:
            slots = ("key", "rev", "deleted", "lists", "e", "age", "orders")
            assert all(getattr(row, slot) == getattr(whole[row.key], slot) for slot in slots)
            assert row.__struct_fields__ == slots  # type: ignore[attr-defined]
    (some, *_) = world.cache.read(layout, "0", HIGHEST, fields=()).rows
    assert some.__struct_fields__[-1] == "e"  # type: ignore[attr-defined]
    wide = world.layouts.adopt(WIDE, 2, NAMED)
    with pytest.raises(ProgrammerError, match="x7"):
        world.cache.read(wide, "0", HIGHEST, fields=["x7"])


def test_fields_of_campaigns_move_to_the_front_of_the_row(layouts: CacheLayouts) -> None:
    before = layouts.adopt(CATALOGUE, 1)
    assert layouts.adopt(CATALOGUE, 1, Held(("plan", "age", "score"), frozenset())) is before
    near = layouts.adopt(CATALOGUE, 1, Held(("email", "user_id"), frozenset()))
    assert near.held.fields[:2] == ("email", "user_id")
    assert near.epoch != before.epoch
    assert layouts.adopt(CATALOGUE, 1) is near


def test_cached_fields_are_right_and_others_are_absent(world: CacheWorld) -> None:
    world.fill(300)
    layout = world.layouts.adopt(WIDE, 1, NAMED)
    assert layout.holds(["plan"], ["Opened"])
    assert not layout.holds(["age"], [])
    assert not layout.holds([], [ORDER])
    stored = world.stored()
    for _ in ("cold", "warm"):
        read = world.read(layout)
        assert read.keys() == stored.keys()
        for key, row in read.items():
            for slot in ("key", "rev", "deleted", "lists", "plan", "x3"):
                assert row[slot] == stored[key][slot]
            assert row["e"][0] == (None, stored[key]["e"][0][1])
            assert row["age"][0] is row["email"][0] is None
    assert world.cache.use.hits == 300


def test_a_refresh_writes_only_cached_fields(world: CacheWorld) -> None:
    world.fill(100)
    layout = world.layouts.adopt(WIDE, 1, NAMED)
    world.cache.warm(layout)
    cold = world.read(layout)
    documents = world.documents(cold)
    world.cache.refresh(layout, [{**raw, "rev": raw["rev"] + 1} for raw in documents])
    after = world.read(layout)
    assert {key: {**row, "rev": 0} for key, row in after.items()} == {k: {**r, "rev": 0} for k, r in cold.items()}
    assert all(after[key]["rev"][0] == cold[key]["rev"][0] + 1 for key in after)


def test_a_wanted_field_is_cached_once_the_feed_adopts_it_and_the_cache_is_warm(
    world: CacheWorld, layouts: CacheLayouts
) -> None:
    world.fill(300)
    old = world.layouts.adopt(WIDE, 1, NAMED)
    world.cache.warm(old)
    assert layouts.want("shop", ["plan"], ["Opened"]) is False
    assert layouts.pending(["shop"]) == set()
    assert layouts.want("shop", ["age"], [ORDER]) is True
    assert layouts.want("shop", ["age"], []) is True
    assert world.layouts.pending(["shop", "other"]) == {"shop"}
    assert layouts.layout(WIDE, 1) is not None
    assert not layouts.layout(WIDE, 1).holds(["age"], [])  # type: ignore[union-attr]
    new = world.layouts.adopt(WIDE, 1, NAMED)
    assert world.layouts.pending(["shop"]) == set()
    assert new.holds(["plan", "x3", "age"], ["Opened", ORDER])
    assert new.epoch != old.epoch
    assert world.cache.warm(new) == new.buckets
    stored = world.stored()
    assert all(row["age"] == stored[key]["age"] for key, row in world.read(new).items())
    assert world.cache.use.misses == 0
    assert world.layouts.adopt(WIDE, 1) is new, "nothing is wanted: nothing changes"


def test_a_process_with_another_catalogue_reads_mongodb_until_the_feed_has_it_too(
    world: CacheWorld, layouts: CacheLayouts
) -> None:
    world.layouts.adopt(CATALOGUE, 1)
    for changed in (
        replace(CATALOGUE, fields={**CATALOGUE.fields, "age": Field("age", FieldType.NUMBER)}),
        replace(CATALOGUE, fields={**CATALOGUE.fields, "age": Field("age", FieldType.INTEGER, many=True)}),
        replace(CATALOGUE, events=dict(reversed(CATALOGUE.events.items()))),
        replace(CATALOGUE, events={**CATALOGUE.events, "More": EventType("More", {})}),
    ):
        assert layouts.layout(changed, 1) is None
        world.layouts.adopt(changed, 1)
        assert layouts.layout(changed, 1) is not None
        assert layouts.layout(CATALOGUE, 1) is None
        world.layouts.adopt(CATALOGUE, 1)


def test_an_undeclared_field_is_no_longer_cached(world: CacheWorld, layouts: CacheLayouts) -> None:
    world.layouts.adopt(CATALOGUE, 1)
    world.layouts.adopt(replace(CATALOGUE, fields=dict(BUILTINS)), 1)
    behind = layouts.layout(CATALOGUE, 1)
    assert behind is not None
    assert behind.holds(BUILTINS, CATALOGUE.events)
    assert not behind.holds(["age"], [])


def test_a_declared_field_outside_the_layout_changes_nothing(layouts: CacheLayouts) -> None:
    before = layouts.adopt(WIDE, 1, NAMED)
    more = replace(WIDE, fields={**WIDE.fields, "y": Field("y", FieldType.STRING)})
    after = layouts.layout(more, 1)
    assert after is not None
    assert after.epoch == before.epoch


def test_the_depth_changes_only_when_a_workspace_outgrows_it(world: CacheWorld) -> None:
    def grown(to: int) -> int:
        have = world.database.users.count_documents({})
        people = [{"_id": user_key("shop", f"v{n}"), "rev": 1} for n in range(have, to)]
        world.database.users.insert_many(people)
        return world.layouts.adopt(CATALOGUE, 1).depth

    assert [grown(size) for size in (10, 130, 250, 300, 1_000, 1_200, 3_000)] == [0, 0, 0, 2, 2, 4, 4]
    world.database.users.delete_many({})
    assert world.layouts.adopt(CATALOGUE, 1).depth == 0


def test_a_previous_layout_is_restored_without_its_buckets(world: CacheWorld) -> None:
    world.fill(200)
    before = world.layouts.adopt(CATALOGUE, 1)
    world.cache.warm(before)
    (changed, *_) = world.stored()
    world.database.users.insert_many([{"_id": user_key("shop", f"v{n}"), "rev": 1} for n in range(3_000)])
    between = world.layouts.adopt(CATALOGUE, 1)
    assert between.depth != before.depth
    world.database.users.update_one({"_id": changed}, {"$set": {"email": "new@x.example"}, "$inc": {"rev": 1}})
    world.cache.refresh(between, world.documents([changed]))
    world.database.users.delete_many({"created": {"$exists": False}, "email": {"$exists": False}})
    again = world.layouts.adopt(CATALOGUE, 1)
    assert (again.held, again.depth) == (before.held, before.depth)
    read = {row.key: row.rev for rows in world.batches(again) for row in rows.rows}
    assert read == {key: row["rev"][0] for key, row in world.stored().items()}


def test_the_fields_wanted_by_many_processes_are_all_adopted(world: CacheWorld) -> None:
    names = [f"x{n}" for n in range(32)]
    done = threading.Event()

    def want(name: str) -> None:
        CacheLayouts(world.database, world.users, "t:").want("shop", [name], [])

    def feed() -> None:
        while not done.is_set():
            world.layouts.adopt(WIDE, 1, NAMED)

    threads = [threading.Thread(target=want, args=(name,)) for name in names]
    feeding = threading.Thread(target=feed)
    for thread in (feeding, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    feeding.join()
    assert world.layouts.adopt(WIDE, 1).holds(names, ())


def test_layouts_of_workspaces_are_independent(layouts: CacheLayouts) -> None:
    layouts.adopt(CATALOGUE, 1)
    other = Catalogue("other", "UTC", None, CATALOGUE.fields, CATALOGUE.events)
    assert layouts.layout(other, 1) is None


def test_a_workspace_that_grows_gets_more_buckets_while_the_feed_runs(
    world: CacheWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new installation activates the cache before its first import."""
    monkeypatch.setattr(cache, "PENDING", 0.0)
    cached = CachedUsers(world.cache, world.layouts, FeedPosition(world.database, world.redis), {"shop": CATALOGUE})
    catalogues = {"shop": CATALOGUE}

    def adopt() -> list[str]:
        return cached.adopt(FeedState(generation=1), lambda _: (frozenset(), frozenset()), catalogues)

    assert adopt() == ["shop"]
    assert adopt() == []
    world.fill(3_000)
    keys = list(world.stored())
    cached.refresh("shop", world.documents(keys[:50]))
    assert adopt() == [], "few users say nothing"
    cached.refresh("shop", world.documents(keys))
    assert adopt() == ["shop"]
    layout = world.layouts.layout(CATALOGUE, 1)
    assert layout is not None
    assert 16 <= 3_000 / layout.buckets <= 256
    assert adopt() == []
    cached.refresh("shop", world.documents(keys))
    assert adopt() == [], "the same users again change no number of buckets"
