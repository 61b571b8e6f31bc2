"""The cache returns any loaded or refreshed user document as the row that the catalogue reads from it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bson import Int64
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.database import Database

from engine.domain.document import Document
from engine.domain.keys import user_key
from tests.support.cache_world import CATALOGUE, CacheWorld

WHOLE = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALAR = st.none() | st.booleans() | WHOLE | WHOLE.map(Int64) | st.floats() | TEXT | st.binary(max_size=5)
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["n", "first", "last"]), inner),
    max_leaves=6,
)
SUMMARY = st.fixed_dictionaries({"n": WHOLE, "first": WHOLE, "last": WHOLE})
NAMES = [name for name, field in CATALOGUE.fields.items() if field.kind == "attribute"]
PARTS = {
    **dict.fromkeys(("email", "first_name", "unsubscribed", "timezone", "created_at", "deleted"), VALUE),
    "lists": VALUE | st.lists(TEXT, max_size=3),
    "a": VALUE | st.dictionaries(st.sampled_from(NAMES), VALUE),
    "k": VALUE | st.dictionaries(st.sampled_from(NAMES), VALUE),
    "g": VALUE | st.dictionaries(st.just("orders"), VALUE),
    "e": VALUE | st.dictionaries(st.sampled_from(list(CATALOGUE.events)), VALUE | SUMMARY),
}
REVISION = st.integers(1, 2**53 - 1)
DOCUMENT = st.builds(lambda rev, parts: {"rev": rev, **parts}, REVISION, st.fixed_dictionaries({}, optional=PARTS))
USERS = st.dictionaries(TEXT.filter(bool), DOCUMENT, max_size=12).map(
    lambda drawn: [{"_id": user_key("shop", name), "w": "shop", "u": name, **rest} for name, rest in drawn.items()]
)


@pytest.fixture
def world(database: Database[Document], cache_url: str) -> Iterator[CacheWorld]:
    made = CacheWorld(database, cache_url)
    yield made
    made.close()


@given(users=USERS, generation=st.integers(0, 2**31))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_any_document_encodes_to_its_row(world: CacheWorld, users: list[Document], generation: int) -> None:
    world.database.users.delete_many({})
    world.redis.flushdb()
    layout = world.adopt(generation)
    assert world.read(layout) == {}
    if users:
        world.database.users.insert_many(users)
    stored = world.stored()
    keys = sorted(stored)
    assert world.refresh(layout, *keys).written == len(keys)
    refreshed = world.read(layout)
    revisions = world.cache.revisions(layout, keys)
    world.redis.flushdb()
    loaded, again = world.read(layout), world.read(layout)
    assert refreshed == loaded == again == stored
    assert revisions == {key: row["rev"][0] for key, row in stored.items()}
