"""Clients for the stores, each with explicit time limits and retries; the composition root makes one of each."""

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
from engine.stores.trouble import AWAY, NOT_FIT, mongo_trouble

if TYPE_CHECKING:
    import redis

MAJORITY: Final = WriteConcern("majority", wtimeout=20_000)
"""Durable on a majority before it is acknowledged (`wtimeout` in ms); every state change is written so."""

READ_MAJORITY: Final = ReadConcern("majority")
"""For probes whose answer ends something: "nothing open" must not be rolled back."""
READ_SNAPSHOT: Final = ReadConcern("snapshot")
"""As `READ_MAJORITY`, and what two indexes tell is of one moment."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Earlier than any lease or retry: what stands for a date that is absent."""

LEVELS: Final = ("local", "available", "majority", "linearizable", "snapshot")
"""MongoDB's read concerns; the driver takes any word for one, and the server refuses every read then."""

TIME_LIMIT: Final = 30.0
"""Seconds that any MongoDB operation may take, sockets and server selection included."""

SELECTION_MS: Final = 10_000
"""Milliseconds that finding a server may take: a replica set has elected another by then."""

SOCKET_TIMEOUT: Final = 10.0
"""Seconds that a Redis command may take."""


class Refused(ConnectionFailure, OperationFailure):
    """MongoDB refuses whatever the data (rights, login, disk): an outage, and nobody's data is to blame."""


class Away(ConnectionFailure, OperationFailure):
    """MongoDB answers that it was away, or is about to be: an outage though it answers."""


class EngineClient(MongoClient[Document]):
    """A client whose time limit for finding a server holds beside its limit for whole operations.

    The driver forgets `serverSelectionTimeoutMS` where `timeoutMS` is set, and would look for a server for all of it.
    """

    def _select_server(self, *args: Any, **options: Any) -> Any:  # the driver's own signature
        with pymongo.timeout(self.options.server_selection_timeout):
            return super()._select_server(*args, **options)

    def _retry_internal(self, *args: Any, **options: Any) -> Any:  # the same
        try:
            return super()._retry_internal(*args, **options)
        except OperationFailure as error:
            if isinstance(error, Refused | Away) or error.code not in NOT_FIT | AWAY:
                raise
            kind = Refused if error.code in NOT_FIT else Away
            raise kind(str(error), error.code, error.details) from error


def mongo_client(url: str) -> MongoClient[Document]:
    """A client of `url`: TLS and credentials stand in it, and its `timeoutMS` and the like win over ours.

    Raises `WrongCall` for a URL that cannot be read, `ServiceUnreachable` where its hosts cannot be looked up.
    """
    return _mongo_client(url)


def require_mongo_options(url: str) -> None:
    """Read `url` with its options as the driver does, and connect to nothing. Raises `WrongCall`."""
    _mongo_client(url, connect=False).close()


def _mongo_client(url: str, **more: Any) -> MongoClient[Document]:
    limits = {"timeoutMS": int(TIME_LIMIT * 1000), "serverSelectionTimeoutMS": SELECTION_MS}
    return _opened(
        url, limits, retryWrites=True, appname="tidegate", tz_aware=True, read_preference=ReadPreference.PRIMARY, **more
    )


def stream_client(url: str) -> MongoClient[Document]:
    """A client for change streams: without an overall time limit, for their wait is the command's own."""
    limits = {"socketTimeoutMS": int(TIME_LIMIT * 1000), "serverSelectionTimeoutMS": SELECTION_MS}
    return _opened(url, limits, timeoutMS=None, appname="tidegate-feed", tz_aware=True, maxPoolSize=2)


def _opened(url: str, limits: dict[str, int], **options: Any) -> MongoClient[Document]:
    require_readable("services.mongo_url", url, MONGO)
    level = _options(url).get("readconcernlevel", "majority")
    if level not in LEVELS:
        raise WrongCall("services.mongo_url cannot be read: readConcernLevel", remedy=f"one of {', '.join(LEVELS)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # an option that it does not know, or whose value is no value
            return EngineClient(url, **_unless_given(url, limits), retryReads=True, **options)
    except (InvalidURI, UserWarning, ValueError, TypeError, OSError) as error:  # OSError: a file of an option
        raise WrongCall(f"services.mongo_url cannot be read: {_said(error)}", remedy="check its options") from error
    except PyMongoError as error:
        if url.startswith("mongodb+srv") and isinstance(error, ConfigurationError):
            raise mongo_trouble(error) from error
        raise WrongCall(f"services.mongo_url cannot be read: {_said(error)}", remedy="check its options") from error


def _said(error: BaseException) -> str:
    """What a driver says of an option: its own words up to the value, which may be a secret."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return re.split(r"[=:]|, (?:not|got)| or maybe| Refer", text)[0][:120]


def _unless_given(url: str, limits: dict[str, int]) -> dict[str, Any]:
    """Those of our time limits that `url` does not set itself (a keyword would win over the URL)."""
    given = _options(url)
    return {name: value for name, value in limits.items() if name.lower() not in given}


def _options(url: str) -> dict[str, str]:
    """What stands behind the `?`, by its name in small letters."""
    return {name.lower(): value for name, value in parse_qsl(url.partition("?")[2])}


def redis_client(url: str) -> redis.Redis:
    """A client of the broker at `url` without retries (a retried script could run twice); `rediss://` is TLS.

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
        pool.connection_class(**pool.connection_kwargs)  # never connects: the driver reads some options only here
    except (ValueError, TypeError, OSError, redis.RedisError) as error:
        raise WrongCall("services.broker_url cannot be read", remedy="check its options") from error
    return client
