"""The client of the broker's Redis, with every option set explicitly (docs/broker.md, rows 10 and 11)."""

from __future__ import annotations

from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.errors import OperatorError, WrongCall
from engine.service_addresses import REDIS, require_readable
from engine.stores.driver_errors import redis_trouble

CONNECT_SECONDS: Final = 3.0
SOCKET_SECONDS: Final = 5.0
"""Ten times the slowest script measured; a hanging Redis blocks a thread no longer than this."""
HEALTH_CHECK_SECONDS: Final = 15


def connect(
    url: str,
    *,
    ca_certs: str | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
    username: str | None = None,
    password: str | None = None,
) -> redis.Redis:
    """Return a client for `redis://`, `rediss://` (TLS, verified) or `unix://`, credentials in the URL or as arguments.

    The client never retries: a Lua call repeated after a lost answer runs twice (and `RedisBroker(host=)` repeats 10
    times).
    """
    options: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": HEALTH_CHECK_SECONDS,
        "socket_timeout": SOCKET_SECONDS,
        "protocol": 2,  # version 3 adds push messages, which nothing here reads
    }
    if not url.startswith("unix://"):
        options |= {"socket_connect_timeout": CONNECT_SECONDS, "socket_keepalive": True}
    if url.startswith("rediss://"):
        options |= {"ssl_ca_certs": ca_certs, "ssl_certfile": certfile, "ssl_keyfile": keyfile}
    given = {"username": username, "password": password}
    options |= {name: value for name, value in given.items() if value is not None}
    require_readable("services.broker_url", url, REDIS)
    try:
        pool = redis.ConnectionPool.from_url(url, **options)
        pool.connection_class(**pool.connection_kwargs)  # never connects: the driver reads some options only here
    except (ValueError, TypeError, OSError, redis.RedisError) as error:
        raise WrongCall("services.broker_url cannot be read", remedy="check its options") from error
    return redis.Redis(connection_pool=pool)


def refuse_shared(broker: redis.Redis, cache: redis.Redis) -> None:
    """Raise `OperatorError` if both clients talk to one server, under whatever names and databases.

    Maintenance runs `KEYS` inside a script: with a million cache keys beside the queues it blocks Redis for 150 ms.
    """
    try:
        same = broker.info("server")["run_id"] == cache.info("server")["run_id"]
    except redis.exceptions.NoPermissionError:
        return  # this user may not run `INFO`
    except redis.RedisError as error:
        raise redis_trouble(error, "the broker or the cache") from error
    if same:
        raise OperatorError(
            "the broker and the cache are the same Redis server",
            remedy="Give each its own instance: the broker keeps everything (noeviction), the cache forgets (LRU).",
        )
