"""Check whether a service is fit for the engine, by doing what the engine does: log in, read, and write.

A probe returns a sentence, or raises `ServiceUnreachable` (no connection or login) or `OperatorError` (the service
answers but is not fit). It leaves nothing behind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from engine.errors import OperatorError, ServiceUnreachable
from engine.stores.driver_errors import mongo_trouble, redis_trouble, search_trouble

if TYPE_CHECKING:
    import redis
    from elasticsearch import Elasticsearch
    from pymongo.database import Database

    from engine.domain.document import Document

OLDEST_MONGO: Final = (6, 0)
OLDEST_REDIS: Final = (6, 0)
SEARCH_SECONDS: Final = 5.0
"""Seconds that Elasticsearch gets to answer."""

_TOUCH: Final = """
-- touch: keys = {probe}; every kind of value that queues and cache are made of, and nothing stays
redis.call("set", KEYS[1], 1)
redis.call("del", KEYS[1])
redis.call("zadd", KEYS[1], 1, "a")
redis.call("del", KEYS[1])
redis.call("hset", KEYS[1], "a", 1)
redis.call("del", KEYS[1])
redis.call("lpush", KEYS[1], 1)
redis.call("del", KEYS[1])
redis.call("sadd", KEYS[1], 1)
return redis.call("del", KEYS[1])
"""


def probe_mongo(database: Database[Document]) -> str:
    """Probe MongoDB: it must be new enough, a replica set (or sharded), and let us read, write and follow changes."""
    from pymongo.errors import PyMongoError

    try:
        hello = database.client.admin.command("hello")
        version = str(database.client.server_info()["version"])
        require_fit_mongo(hello, version)
        _write_and_follow(database)
    except PyMongoError as error:
        raise mongo_trouble(error) from error
    return version


def require_fit_mongo(hello: Mapping[str, Any], version: str) -> None:
    """Check the server's description of itself. Raises `OperatorError`."""
    if _numbers(version) < OLDEST_MONGO:
        raise OperatorError(f"MongoDB {version} is too old", remedy="the engine needs 6.0 or later")
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        remedy = "start mongod with --replSet NAME and call rs.initiate() once; change streams need it"
        raise OperatorError("MongoDB is a standalone server, not a replica set", remedy=remedy)
    if not hello.get("isWritablePrimary", hello.get("ismaster", False)):
        remedy = "name the replica set in the address (?replicaSet=NAME), without directConnection"
        raise OperatorError("MongoDB's server at that address is a read-only secondary", remedy=remedy)


def _write_and_follow(database: Database[Document]) -> None:
    """Write and delete a lease that nobody holds, and open a change stream. Raises `PyMongoError`."""
    leases = database["leases"]
    mark = f"probe:{uuid4().hex}"
    leases.update_one({"_id": mark}, {"$set": {"probe": True}}, upsert=True)
    leases.delete_one({"_id": mark})
    stream = {"aggregate": 1, "pipeline": [{"$changeStream": {}}], "cursor": {"batchSize": 0}}
    with database.client.start_session(causal_consistency=False) as session:
        opened = database.command(stream, session=session)
        with suppress(Exception):  # the cursor ends by itself
            database.command({"killCursors": "$cmd.aggregate", "cursors": [opened["cursor"]["id"]]}, session=session)


def probe_broker(client: redis.Redis, database: str) -> str:
    """Probe the broker's Redis: it must be a primary, new enough, and accept writes; `database` prefixes its keys."""
    version = _probe_redis(client, "the broker", (f"tidegate:{database}:probe", f"{database}:tidegate:probe"))
    eviction = _eviction(client)
    if eviction not in (None, "noeviction"):
        raise OperatorError("the broker's Redis evicts keys", remedy="set maxmemory-policy noeviction there")
    return f"{version}, {'evicts nothing' if eviction else 'does not report whether it evicts keys'}"


def probe_cache(client: redis.Redis, database: str) -> str:
    """Probe the cache's Redis: it must be a primary, new enough, and accept writes."""
    return _probe_redis(client, "the cache", (f"{database}:tidegate:probe",))


def _probe_redis(client: redis.Redis, name: str, keys: tuple[str, ...]) -> str:
    import redis

    try:
        client.ping()
        version = require_fit_redis(_info(client), name)
        for key in keys:
            client.set(key, 1, ex=60)
            client.delete(key)
            client.eval(_TOUCH, 1, key)
    except redis.RedisError as error:
        raise redis_trouble(error, name) from error
    return version


def require_fit_redis(info: Mapping[str, Any], name: str) -> str:
    """Check the server's description of itself (empty if we may not ask); return its version.

    Raises `OperatorError`.
    """
    version = str(info.get("redis_version", ""))
    if version and _numbers(version) < OLDEST_REDIS:
        raise OperatorError(f"{name} is Redis {version}, which is too old", remedy="the engine needs 6.0 or later")
    if info.get("role") == "slave":
        raise OperatorError(f"{name} is a read-only replica", remedy="give the address of its primary")
    return str(info.get("valkey_version") or version or "it does not report its version")


def _info(client: redis.Redis) -> Mapping[str, Any]:
    import redis

    try:
        info: Mapping[str, Any] = client.info()
    except redis.ResponseError:  # the user has no right to ask
        return {}
    return info


def _eviction(client: redis.Redis) -> str | None:
    """Return the eviction policy; None if the server does not tell it (a managed Redis)."""
    import redis

    try:
        config = client.config_get("maxmemory-policy")
    except redis.RedisError:
        return None
    return str(config["maxmemory-policy"]) if isinstance(config, dict) and "maxmemory-policy" in config else None


def probe_search(client: Elasticsearch, alias: str) -> str:
    """Probe Elasticsearch: it must answer, let us in, and accept writes to the index `alias`; return its health."""
    from elasticsearch import ApiError, NotFoundError, TransportError

    asking = client.options(request_timeout=SEARCH_SECONDS, max_retries=0)
    try:
        health = str(asking.cluster.health(timeout="4s")["status"])
        if health == "red":
            raise OperatorError("Elasticsearch is red: some data is missing", remedy="its health report shows why")
        with suppress(NotFoundError):  # the index is created later
            blocks = asking.indices.get_settings(index=alias, name="index.blocks.*", flat_settings=True)
            if any("true" in block.get("settings", {}).values() for block in blocks.body.values()):
                problem = f"Elasticsearch's index {alias} takes no writes: is its disk nearly full?"
                remedy = "make room; Elasticsearch lifts the block itself, or set index.blocks.* to null"
                raise OperatorError(problem, remedy=remedy)
    except (ApiError, TransportError) as error:
        raise search_trouble(error) from error
    except (KeyError, TypeError, AttributeError) as error:  # the server answers JSON, but not this JSON
        raise _no_search() from error
    return health


def _no_search() -> ServiceUnreachable:
    return ServiceUnreachable("the server at that address is not Elasticsearch", remedy="check services.elastic_url")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
