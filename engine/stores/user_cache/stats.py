"""Performance of the user cache: hits and misses counted in this process, and memory reported by its server."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from engine.clock import SystemClock
from engine.stores.user_cache.connection import Away, CacheServer, Tell

BETWEEN_CHECKS: Final = timedelta(seconds=10)
"""Minimum time between two checks of the server's memory, by a process that has to load."""

_LOOKS: Final = 3
"""Checks in a row that must find evictions before the memory counts as too small, and checks in a row without evictions
before it counts as sufficient again. Redis also evicts buckets of an ended epoch, but that soon stops."""


@dataclass(frozen=True, slots=True)
class CacheUse:
    """Cache reads of this process: `hits` and `misses` count users, `loads` counts buckets that were stored.

    `unstored` counts buckets that were read from MongoDB but not stored: another process was loading them, a refresh
    voided the lease, the memory is full, or Redis is away.
    """

    hits: int = 0
    misses: int = 0
    loads: int = 0
    unstored: int = 0

    @property
    def hit_rate(self) -> float | None:
        """The share of users that came from the cache; None if none were read."""
        read = self.hits + self.misses
        return self.hits / read if read else None


class CacheCounts:
    """Thread-safe counts of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._use = CacheUse()

    def add(self, *, hits: int = 0, misses: int = 0, loads: int = 0, unstored: int = 0) -> None:
        """Raise the counts."""
        with self._lock:
            u = self._use
            self._use = CacheUse(u.hits + hits, u.misses + misses, u.loads + loads, u.unstored + unstored)

    def read(self) -> CacheUse:
        """Return the counts so far."""
        return self._use


@dataclass(frozen=True, slots=True)
class CacheMemory:
    """Memory as the server reports it: bytes used and allowed (0: no limit), and keys evicted since it started."""

    used: int
    limit: int
    evicted: int


def cache_memory(server: CacheServer) -> CacheMemory | None:
    """Return the server's memory; None if it is away."""
    try:
        memory, stats = server.ask([(b"INFO", b"memory"), (b"INFO", b"stats")])
    except Away:
        return None
    lines = dict(line.split(b":", 1) for line in (memory + stats).splitlines() if b":" in line)
    return CacheMemory(int(lines[b"used_memory"]), int(lines[b"maxmemory"]), int(lines[b"evicted_keys"]))


class MemoryWatch:
    """Reports once when the cache's memory is too small for what is read, and once when it is sufficient again."""

    def __init__(self, server: CacheServer, tell: Tell, every: timedelta = BETWEEN_CHECKS) -> None:
        self._server = server
        self._tell = tell
        self._every = every.total_seconds()
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._next = 0.0
        self._evicted: int | None = None
        self._alike = 0  # consecutive checks: positive if they found evictions, negative if not
        self._full = False

    def loaded(self, *, refused: bool) -> None:
        """Check the memory after a load; `refused` is True if the server had no memory for the buckets."""
        with self._lock:
            now = self._clock.monotonic()
            if now < self._next and (self._full or not refused):
                return
            self._next = now + self._every
        memory = cache_memory(self._server)
        if memory is None:
            return
        with self._lock:
            rising = self._evicted is not None and memory.evicted > self._evicted
            self._evicted = memory.evicted
            bad = rising or refused
            self._alike = max(self._alike, 0) + 1 if bad else min(self._alike, 0) - 1
            full = refused or (self._alike >= _LOOKS if not self._full else self._alike > -_LOOKS)
            changed, self._full = full != self._full, full
        if changed and full:
            reason = "refuses" if refused else "evicts"
            self._tell("cache.full", reason=reason, used=memory.used, limit=memory.limit, evicted=memory.evicted)
        elif changed:
            self._tell("cache.fits", used=memory.used, limit=memory.limit)
