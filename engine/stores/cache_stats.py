"""How well the user cache does: counted in this process, and told by its server."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from engine.stores.cache_server import Away, CacheServer


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
