"""Read what a page needs from several services; what does not answer is named, and the page shows the rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Final, TypeVar

from engine.errors import ServiceUnreachable
from engine.stores.stores import Stores

T = TypeVar("T")

PATIENCE: Final = 2.0
"""Seconds that a page waits for MongoDB in one reading."""
REST: Final = 3.0
"""Seconds for which a service that did not answer is not asked again."""


class Outages:
    """Remembers which services did not answer lately, for all requests of this process."""

    def __init__(self, outages: tuple[type[BaseException], ...]) -> None:
        self._until: dict[str, float] = {}
        self._lock = Lock()
        self.kinds: tuple[type[BaseException], ...] = (*outages, ServiceUnreachable)

    def rests(self, service: str) -> bool:
        """Return whether `service` did not answer within the last `REST` seconds."""
        with self._lock:
            return self._until.get(service, 0.0) > time.monotonic()

    def lost(self, service: str) -> None:
        """Record that `service` does not answer."""
        with self._lock:
            self._until[service] = time.monotonic() + REST

    def back(self, service: str) -> None:
        """Record that `service` answers."""
        with self._lock:
            self._until.pop(service, None)


@dataclass(slots=True)
class Missing:
    """What one page could not read: sentences such as `MongoDB does not answer: the counts are missing`."""

    outages: Outages
    sentences: list[str] = field(default_factory=list)

    def read(self, service: str, what: str, fetch: Callable[[], T]) -> T | None:
        """Return what `fetch` reads from `service`, or None, and remember that `what` is missing."""
        try:
            return self.need(service, fetch)
        except self.outages.kinds:
            self.sentences.append(f"{service} does not answer: {what} cannot be shown")
            return None

    def need(self, service: str, fetch: Callable[[], T]) -> T:
        """Return what `fetch` reads from `service`. Raises `ServiceUnreachable` or an outage of the stores."""
        if self.outages.rests(service):
            raise ServiceUnreachable(f"{service} does not answer", remedy="tidegate status shows the services")
        try:
            with Stores.within(PATIENCE):
                value = fetch()
        except self.outages.kinds:
            self.outages.lost(service)
            raise
        self.outages.back(service)
        return value
