"""Empties the user cache and Elasticsearch at random moments, as an accident would, as long as it is told to.

Neither holds anything that MongoDB does not: the mails must be the same.
"""

from __future__ import annotations

import random
import threading
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

import redis
from elasticsearch import ApiError, Elasticsearch

from engine.settings import Settings
from engine.stores.search_index import alias_of

_SPREAD: Final = (0.5, 1.5)


class Wiper:
    """A context in which one of them, or both, is emptied about `every` so often; `wiped` tells which, in order.

    `settings` name the services; one that they do not name is left out. The same `seed` draws the same moments.
    """

    def __init__(self, settings: Settings, every: timedelta, *, seed: int = 0) -> None:
        services = settings.services
        self.wiped: list[str] = []
        self._cache = redis.Redis.from_url(services.cache_url.get_secret_value()) if services.cache_url else None
        self._search = Elasticsearch(services.elastic_url.get_secret_value()) if services.elastic_url else None
        self._alias = alias_of(services.mongo_database)
        self._every = every
        self._draw = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wiper", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
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

    def _run(self) -> None:
        while not self._stop.wait(self._every.total_seconds() * self._draw.uniform(*_SPREAD)):
            self.wipe(*self._draw.choice([(True, False), (False, True), (True, True)]))
