"""An installation with a user cache too small for its users: campaigns continue correctly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from pydantic import SecretStr

from engine.app.app import App
from engine.domain.keys import user_key
from engine.domain.work import AccessPath
from engine.stores.user_cache.buckets import UserCache
from engine.stores.user_cache.connection import CacheServer, cache_client
from engine.telemetry.events import emit, listening
from tests.support.pipeline_shop import Collected
from tests.support.pipeline_world import World
from tests.support.reading_world import entered, following

rig = SimpleNamespace(**run_path(str(Path(__file__).parents[3] / "stock" / "rig.py")))
USERS: Final = [f"u{number}" for number in range(3_000)]
GOLD, SILVER = (name + "x" * 5_000 for name in ("gold", "silver"))
"""Rows with one of these fill 10 MB with two thirds of the users."""


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Any]:
    """Yield a separate cache of 10 MB."""
    made = rig.Valkey(
        tmp_path / "cache", "--appendonly", "no", "--maxmemory", "10mb", "--maxmemory-policy", "allkeys-lru"
    )
    yield made
    made.close()


@pytest.fixture
def small(make_world: Callable[..., World], valkey: Any) -> World:
    """Yield a world with that user cache."""
    world = make_world(reading=True)
    services = world.settings.services.model_copy(update={"elastic_url": None, "cache_url": SecretStr(valkey.url)})
    app = App(world.settings.model_copy(update={"services": services}))
    app.hooks.messenger = Collected(world.asked)
    server = CacheServer(cache_client(valkey.url), emit)
    app.stores.user_cache = UserCache(server, app.stores.users, emit, between_checks=timedelta(milliseconds=20))
    world.close()
    world.app = app
    return world


def test_campaigns_continue_correctly_while_the_user_cache_is_full(small: World, valkey: Any) -> None:
    world, gold = small, {"plan": GOLD}
    world.users(USERS[:1_500], plan=GOLD)
    world.users(USERS[1_500:], plan=SILVER)
    expected = {user_key("shop", user) for user in USERS[:1_500]}
    with listening() as events, following(world):
        assert entered(world, "first", gold, AccessPath.CACHE) == (expected, "cache")
        assert entered(world, "again", gold, AccessPath.CACHE) == (expected, "cache")
        world.change(USERS[0], plan=SILVER)
        world.change(USERS[-1], plan=GOLD)
        now = expected - {user_key("shop", USERS[0])} | {user_key("shop", USERS[-1])}
        assert entered(world, "changed", gold, AccessPath.CACHE) == (now, "cache")
        assert [occurrence.fields["reason"] for occurrence in events.of("cache.full")] == ["evicts"], "one warning"
        assert world.app.stores.user_cache is not None
        full = world.app.stores.user_cache.memory()
        assert full is not None
        assert full.evicted > 0
        valkey.client.config_set("maxmemory", "100mb")
        assert entered(world, "larger", gold, AccessPath.CACHE) == (now, "cache")
        cached = world.app.cached_users
        assert cached is not None
        assert cached.warm_share("shop") == 1.0, "it recovers by itself"
        assert events.of("cache.away") == []
    world.settle()
