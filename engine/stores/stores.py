"""All stores of one installation, opened from the settings; each connects at its first use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Protocol, cast

import pymongo
from pymongo.errors import ConnectionFailure, ExecutionTimeout, NetworkTimeout, WTimeoutError

from engine.errors import OperatorError
from engine.stores.deferred import Deferred
from engine.stores.mongo_stores import MongoStores

if TYPE_CHECKING:  # imported at their use: most commands use only one service
    import redis
    from elasticsearch import Elasticsearch
    from pydantic import SecretStr
    from pymongo import MongoClient
    from pymongo.database import Database

    from engine.catalogue.catalogue import Catalogue
    from engine.domain.document import Document
    from engine.stores.clock_offsets import ClockOffsets
    from engine.stores.mongo.campaign_time import StoredClock
    from engine.stores.mongo.change_stream import UserStream
    from engine.stores.mongo.event_aggregates import Derivation
    from engine.stores.mongo.feed_position import FeedPosition
    from engine.stores.mongo.lists import Lists
    from engine.stores.mongo.user_upserts import UserUpserts
    from engine.stores.redis.clock_wakeup import RedisWakeup
    from engine.stores.redis.failed_logins import RedisFailedLogins
    from engine.stores.redis.send_rate import RedisSendRates
    from engine.stores.search.user_index import UserIndex
    from engine.stores.user_cache.active_layouts import CacheLayouts
    from engine.stores.user_cache.buckets import UserCache
    from engine.stores.user_cache.cache import CachedUsers
    from engine.stores.user_cache.connection import Tell


class Addresses(Protocol):
    """The part of the settings that describes the services."""

    mongo_url: SecretStr | None
    mongo_database: str
    broker_url: SecretStr | None
    cache_url: SecretStr | None
    elastic_url: SecretStr | None
    elastic_api_key: SecretStr | None
    elastic_ca: Path | None


PING: Final = 1.5
"""Seconds that a store gets to answer a ping."""

MONGO_OUTAGES: Final = (ConnectionFailure, NetworkTimeout, ExecutionTimeout, WTimeoutError)


class _Outages:
    """The outage exceptions of all stores, assembled on access because this imports the Redis client."""

    def __get__(self, instance: object, owner: type) -> tuple[type[Exception], ...]:
        import redis

        return (*MONGO_OUTAGES, redis.ConnectionError, redis.TimeoutError)


class Stores(MongoStores):
    """The stores; each is created once."""

    OUTAGES: ClassVar = _Outages()
    """The exceptions of a store that does not answer; no data is to blame for these."""

    def __init__(self, services: Addresses, tell: Tell | None = None) -> None:
        """`tell` receives events about outages that no caller sees."""
        self._services = services
        self._stream_client: MongoClient[Document] | None = None
        self._tell = tell

    @staticmethod
    @contextmanager
    def within(seconds: float) -> Iterator[None]:
        """Give up MongoDB's calls in this block after `seconds` in total, with one of the `OUTAGES`."""
        with pymongo.timeout(seconds):
            yield

    @cached_property
    def mongo(self) -> MongoClient[Document]:
        """The MongoDB client. Raises `OperatorError` without an address."""
        from engine.stores.mongo.client import mongo_client

        return mongo_client(_address(self._services.mongo_url, "mongo"))

    @cached_property
    def database(self) -> Database[Document]:
        """The engine's own database."""
        return self.mongo[self._services.mongo_database]

    @cached_property
    def broker_client(self) -> redis.Redis:
        """A client of the broker's Redis, for wake-ups and the feed's position."""
        from engine.stores.mongo.client import redis_client

        return redis_client(_address(self._services.broker_url, "broker"))

    @cached_property
    def elastic(self) -> Elasticsearch | None:
        """The Elasticsearch client; None without an address."""
        s = self._services
        if s.elastic_url is None:
            return None
        from engine.stores.search.client import elastic_client

        key = s.elastic_api_key.get_secret_value() if s.elastic_api_key else None
        ca = str(s.elastic_ca) if s.elastic_ca else None
        return elastic_client(s.elastic_url.get_secret_value(), api_key=key, ca_certificate=ca)

    @cached_property
    def clock(self) -> StoredClock:
        """Campaign time from MongoDB, system time from the machine."""
        from engine.stores.mongo.campaign_time import StoredClock

        return StoredClock(self.times)

    @cached_property
    def wakeup(self) -> RedisWakeup:
        """Wakes the clock; separate for each database on one Redis."""
        from engine.stores.redis.clock_wakeup import RedisWakeup

        return RedisWakeup(self.broker_client, f"{self.database.name}:")

    @cached_property
    def send_rates(self) -> RedisSendRates:
        """The send rates that all workers share; separate for each database on one Redis."""
        from engine.stores.redis.send_rate import RedisSendRates

        return RedisSendRates(self.broker_client, f"{self.database.name}:")

    @cached_property
    def user_cache(self) -> UserCache | None:
        """The user cache; None without an address."""
        from engine.stores.user_cache.buckets import UserCache
        from engine.stores.user_cache.connection import CacheServer, cache_client, unheard

        url = self._services.cache_url
        if url is None:
            return None
        tell = self._tell or unheard
        return UserCache(CacheServer(cache_client(url.get_secret_value()), tell), self.users, tell)

    def cached_users(self, catalogues: Mapping[str, Catalogue]) -> CachedUsers | None:
        """Return the user cache by workspace; None without a cache."""
        from engine.stores.user_cache.cache import CachedUsers

        cache = self.user_cache
        return None if cache is None else CachedUsers(cache, self.cache_layouts, self.feeds, catalogues)

    @cached_property
    def cache_layouts(self) -> CacheLayouts:
        """The layouts of the user cache in Redis; separate for each database on one Redis."""
        from engine.stores.user_cache.active_layouts import CacheLayouts

        return CacheLayouts(self.database, self.users, f"{self.database.name}:")

    @cached_property
    def feeds(self) -> FeedPosition:
        """The progress of the feed."""
        from engine.stores.mongo.feed_position import FeedPosition

        return FeedPosition(self.database, self.broker_client)

    def user_stream(self, token: str | None) -> UserStream:
        """Open the users' change stream after `token`, on a client of its own. Raises `HistoryLost`."""
        from engine.stores.mongo.change_stream import UserStream
        from engine.stores.mongo.client import stream_client

        if self._stream_client is None:
            self._stream_client = stream_client(_address(self._services.mongo_url, "mongo"))
        return UserStream(self._stream_client, self._services.mongo_database, token)

    @cached_property
    def failed_logins(self) -> RedisFailedLogins:
        """Failed log-ins; separate for each database on one Redis."""
        from engine.stores.redis.failed_logins import RedisFailedLogins

        return RedisFailedLogins(self.broker_client, f"{self.database.name}:")

    @cached_property
    def user_index(self) -> UserIndex | None:
        """The users in Elasticsearch; None without an address."""
        if self._services.elastic_url is None:
            return None
        return cast("UserIndex", Deferred(self._open_index))

    def _open_index(self) -> UserIndex:
        from engine.stores.search.user_index import UserIndex, alias_of

        if self.elastic is None:
            raise OperatorError("services.elastic_url is not set")
        return UserIndex(self.elastic, alias_of(self._services.mongo_database))

    def derivation(self, catalogue: Catalogue) -> Derivation:
        """Return the derivation that updates users of a workspace from their events."""
        from engine.stores.mongo.event_aggregates import Derivation

        return Derivation(self.users, self.events, catalogue)

    def upserts(self, catalogue: Catalogue) -> UserUpserts:
        """Return the update path for rows about users of a workspace."""
        from engine.stores.mongo.event_aggregates import initial_fields
        from engine.stores.mongo.user_upserts import UserUpserts

        return UserUpserts(self.users, initial_fields(catalogue))

    def lists(self, catalogue: Catalogue) -> Lists:
        """Return the lists of a workspace."""
        from engine.stores.mongo.event_aggregates import initial_fields
        from engine.stores.mongo.lists import Lists

        return Lists(self.database, self.users, initial_fields(catalogue))

    @cached_property
    def clock_offsets(self) -> ClockOffsets:
        """How far clocks are from MongoDB's."""
        from engine.stores.clock_offsets import ClockOffsets

        return ClockOffsets(self.database, self.broker_client)

    def pings(self) -> dict[str, Callable[[], object]]:
        """Return one round trip to each store that has an address, by its name; each raises if the store is away."""
        pings: dict[str, Callable[[], object]] = {"mongodb": self._ping_mongo, "broker": self._ping_broker}
        if self._services.cache_url is not None:
            pings["cache"] = self._ping_cache
        if self._services.elastic_url is not None:
            pings["elasticsearch"] = self._ping_search
        return pings

    def _ping_mongo(self) -> None:
        with self.within(PING):
            self.database.client.admin.command("ping")

    def _ping_broker(self) -> None:
        self.broker_client.ping()

    def _ping_cache(self) -> None:
        if self.user_cache is not None and self.user_cache.memory() is None:
            raise OperatorError("the user cache does not answer")

    def _ping_search(self) -> None:
        if self.elastic is not None:
            self.elastic.options(request_timeout=PING, max_retries=0).cluster.health(timeout="1s")

    def close(self) -> None:
        """Close all open clients; safe to repeat."""
        if self._stream_client is not None:
            self._stream_client.close()
            self._stream_client = None
        for name in ("mongo", "broker_client", "user_cache", "elastic"):
            client = self.__dict__.pop(name, None)
            if client is not None:
                client.close()


def _address(url: SecretStr | None, name: str) -> str:
    if url is None:
        raise OperatorError(
            f"services.{name}_url is not set and no local service runs",
            remedy=f"start the local ones: tidegate up; or set TIDEGATE_SERVICES__{name.upper()}_URL",
        )
    return url.get_secret_value()
