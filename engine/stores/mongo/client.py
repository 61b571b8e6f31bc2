"""Clients of the stores, each with explicit time limits and retries; the composition root creates one of each."""

from __future__ import annotations

import re
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import pymongo
from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.errors import ConfigurationError, ConnectionFailure, InvalidURI, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from engine.domain.document import Document
from engine.errors import WrongCall
from engine.service_addresses import MONGO, REDIS, require_readable
from engine.stores.driver_errors import AWAY, NOT_FIT, mongo_trouble

if TYPE_CHECKING:
    import redis

MAJORITY: Final = WriteConcern("majority", wtimeout=20_000)
"""A majority makes a write durable before MongoDB acknowledges it (`wtimeout` in ms). Every state change uses this."""

READ_MAJORITY: Final = ReadConcern("majority")
"""For probes whose answer ends something: the read "nothing open" must not be rolled back later."""
READ_SNAPSHOT: Final = ReadConcern("snapshot")
"""Like `READ_MAJORITY`, but reads through two indexes also see the same moment."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Earlier than any lease or retry; used in place of an absent date."""

LEVELS: Final = ("local", "available", "majority", "linearizable", "snapshot")
"""MongoDB's read concerns. The driver accepts any word as one, and the server then refuses every read."""

TIME_LIMIT: Final = 30.0
"""Seconds that a MongoDB operation may take, including sockets and server selection."""

SELECTION_MS: Final = 10_000
"""Milliseconds for finding a server: enough for a replica set to elect another primary."""

SOCKET_TIMEOUT: Final = 10.0
"""Seconds that a Redis command may take."""


class Refused(ConnectionFailure, OperationFailure):
    """MongoDB refuses independently of the data (rights, login, disk): an outage, so no data is to blame."""


class Away(ConnectionFailure, OperationFailure):
    """MongoDB answers that it was away or is about to be: an outage, although it answers."""


class EngineClient(MongoClient[Document]):
    """A client that applies its server selection limit as well as its limit for whole operations.

    If `timeoutMS` is set, the driver ignores `serverSelectionTimeoutMS` and would search for a server all that time.
    """

    def _select_server(self, *args: Any, **options: Any) -> Any:  # the driver's own signature
        with pymongo.timeout(self.options.server_selection_timeout):
            return super()._select_server(*args, **options)

    def _retry_internal(self, *args: Any, **options: Any) -> Any:  # the driver's own signature
        try:
            return super()._retry_internal(*args, **options)
        except OperationFailure as error:
            if isinstance(error, Refused | Away) or error.code not in NOT_FIT | AWAY:
                raise
            kind = Refused if error.code in NOT_FIT else Away
            raise kind(str(error), error.code, error.details) from error


def mongo_client(url: str) -> MongoClient[Document]:
    """Create a client of `url`, which contains TLS and credentials.

    Its own `timeoutMS` and similar options override ours. Raises `WrongCall` if the URL cannot be read,
    `ServiceUnreachable` if its hosts cannot be resolved.
    """
    return _mongo_client(url)


def require_mongo_options(url: str) -> None:
    """Parse `url` and its options as the driver does, without connecting. Raises `WrongCall`."""
    _mongo_client(url, connect=False).close()


def _mongo_client(url: str, **more: Any) -> MongoClient[Document]:
    limits = {"timeoutMS": int(TIME_LIMIT * 1000), "serverSelectionTimeoutMS": SELECTION_MS}
    return _opened(
        url, limits, retryWrites=True, appname="tidegate", tz_aware=True, read_preference=ReadPreference.PRIMARY, **more
    )


def stream_client(url: str) -> MongoClient[Document]:
    """Create a client for change streams without an overall time limit; the command itself limits the wait."""
    limits = {"socketTimeoutMS": int(TIME_LIMIT * 1000), "serverSelectionTimeoutMS": SELECTION_MS}
    return _opened(url, limits, timeoutMS=None, appname="tidegate-feed", tz_aware=True, maxPoolSize=2)


def _opened(url: str, limits: dict[str, int], **options: Any) -> MongoClient[Document]:
    require_readable("services.mongo_url", url, MONGO)
    level = _options(url).get("readconcernlevel", "majority")
    if level not in LEVELS:
        raise WrongCall("services.mongo_url cannot be read: readConcernLevel", remedy=f"one of {', '.join(LEVELS)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # raised for an unknown option or an invalid value
            return EngineClient(url, **_unless_given(url, limits), retryReads=True, **options)
    except (InvalidURI, UserWarning, ValueError, TypeError, OSError) as error:  # OSError: a file that an option names
        raise WrongCall(f"services.mongo_url cannot be read: {_said(error)}", remedy="check its options") from error
    except PyMongoError as error:
        if url.startswith("mongodb+srv") and isinstance(error, ConfigurationError):
            raise mongo_trouble(error) from error
        raise WrongCall(f"services.mongo_url cannot be read: {_said(error)}", remedy="check its options") from error


def _said(error: BaseException) -> str:
    """Return the driver's message about an option up to the value, which may be a secret."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return re.split(r"[=:]|, (?:not|got)| or maybe| Refer", text)[0][:120]


def _unless_given(url: str, limits: dict[str, int]) -> dict[str, Any]:
    """Return those of our time limits that `url` does not set itself, because a keyword would override the URL."""
    given = _options(url)
    return {name: value for name, value in limits.items() if name.lower() not in given}


def _options(url: str) -> dict[str, str]:
    """Return the options after the `?`, by name in lower case."""
    return {name.lower(): value for name, value in parse_qsl(url.partition("?")[2])}


def redis_client(url: str) -> redis.Redis:
    """Create a client of the broker at `url` without retries (a retried script could run twice); `rediss://` is TLS.

    Raises `WrongCall`.
    """
    import redis

    require_readable("services.broker_url", url, REDIS)
    try:
        client = redis.Redis.from_url(
            url,
            socket_timeout=SOCKET_TIMEOUT,
            socket_connect_timeout=5.0,
            health_check_interval=15,
            retry=None,
        )
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # never connects: the driver checks some options only here
    except (ValueError, TypeError, OSError, redis.RedisError) as error:
        raise WrongCall("services.broker_url cannot be read", remedy="check its options") from error
    return client
