"""Empties the user cache and Elasticsearch at random moments, as an accident would, as long as it is told to.

Neither holds anything that MongoDB does not: the mails must be the same.
"""

from __future__ import annotations

import random
from datetime import timedelta
from types import TracebackType
from typing import Final

import redis
from elasticsearch import ApiError, Elasticsearch

from engine.settings import Settings
from engine.stores.search.user_index import alias_of
from examples.grocer.chaos import Recurring

_SPREAD: Final = (0.5, 1.5)


class Wiper(Recurring):
    """A context in which one of them, or both, is emptied about `every` so often; `wiped` tells which, in order.

    `settings` name the services; one that they do not name is left out. The same `seed` draws the same moments.
    """

    def __init__(self, settings: Settings, every: timedelta, *, seed: int = 0) -> None:
        super().__init__("wiper")
        services = settings.services
        self.wiped: list[str] = []
        self._cache = redis.Redis.from_url(services.cache_url.get_secret_value()) if services.cache_url else None
        self._search = Elasticsearch(services.elastic_url.get_secret_value()) if services.elastic_url else None
        self._alias = alias_of(services.mongo_database)
        self._every = every
        self._draw = random.Random(seed)

    def pause(self) -> float:
        """At random, half as long to half as long again."""
        return self._every.total_seconds() * self._draw.uniform(*_SPREAD)

    def act(self) -> None:
        """Empty one of them, or both."""
        self.wipe(*self._draw.choice([(True, False), (False, True), (True, True)]))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        for client in (self._cache, self._search):
            if client is not None:
                client.close()

    def wipe(self, cache: bool, search: bool) -> None:
        """Take every bucket from the cache, and the users' index from Elasticsearch."""
        if cache and self._cache is not None:
            self._cache.flushall()
            self.wiped.append("cache")
        if search and self._search is not None:
            try:
                names = list(self._search.indices.get_alias(name=self._alias))
                self._search.indices.delete(index=names)
            except ApiError:
                return  # it is gone, and not made again yet
            self.wiped.append("elastic")
