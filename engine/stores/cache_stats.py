"""How well the user cache does: counted in this process, and told by its server."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from engine.clock import SystemClock
from engine.stores.cache_server import Away, CacheServer, Tell

BETWEEN_LOOKS: Final = timedelta(seconds=10)
"""Between two looks at the server's memory, by a process that has to load."""

_LOOKS: Final = 3
"""So many looks in a row must find evictions before the memory is said to be too small, and none before it is said to
be enough again: buckets of an epoch that has ended are evicted too, and that is soon over."""


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What readers of this process found: `hits` and `misses` are users, `loads` are buckets that were stored.

    `unstored` are buckets that were read from MongoDB and not stored: somebody else was loading them, a refresh voided
    the lease, the memory is full, or Redis is away.
    """

    hits: int = 0
    misses: int = 0
    loads: int = 0
    unstored: int = 0

    @property
    def hit_rate(self) -> float | None:
        """The share of users that came from the cache; None where nobody was read."""
        read = self.hits + self.misses
        return self.hits / read if read else None


class CacheCounts:
    """Counts for the threads of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._use = CacheUse()

    def add(self, *, hits: int = 0, misses: int = 0, loads: int = 0, unstored: int = 0) -> None:
        """Raise the counts."""
        with self._lock:
            u = self._use
            self._use = CacheUse(u.hits + hits, u.misses + misses, u.loads + loads, u.unstored + unstored)

    def read(self) -> CacheUse:
        """The counts so far."""
        return self._use


@dataclass(frozen=True, slots=True)
class CacheMemory:
    """What the server tells of itself: bytes in use and allowed (0: no bound), and keys evicted since it started."""

    used: int
    limit: int
    evicted: int


def cache_memory(server: CacheServer) -> CacheMemory | None:
    """The server's memory; None where it is away."""
    try:
        memory, stats = server.ask([(b"INFO", b"memory"), (b"INFO", b"stats")])
    except Away:
        return None
    told = dict(line.split(b":", 1) for line in (memory + stats).splitlines() if b":" in line)
    return CacheMemory(int(told[b"used_memory"]), int(told[b"maxmemory"]), int(told[b"evicted_keys"]))


class MemoryWatch:
    """Says once when the cache's memory is too small for what is read, and once when it is enough again."""

    def __init__(self, server: CacheServer, tell: Tell, every: timedelta = BETWEEN_LOOKS) -> None:
        self._server = server
        self._tell = tell
        self._every = every.total_seconds()
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._next = 0.0
        self._evicted: int | None = None
        self._alike = 0  # looks in a row that found evictions (above nought) or none (below)
        self._full = False

    def loaded(self, *, refused: bool) -> None:
        """Some buckets had to be loaded; `refused` where the server had no memory for them."""
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
