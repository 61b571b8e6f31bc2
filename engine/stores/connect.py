"""Clients for the stores, each with explicit time limits and retries; the composition root makes one of each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.errors import InvalidURI, PyMongoError
from pymongo.read_concern import ReadConcern

from engine.errors import ServiceUnreachable, WrongCall
from engine.stores.documents import Document

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

TIME_LIMIT: Final = 30.0
"""Seconds that any MongoDB operation may take, sockets and server selection included."""

SELECTION_MS: Final = 10_000
"""Milliseconds that finding a server may take: a replica set has elected another by then."""

SOCKET_TIMEOUT: Final = 10.0
"""Seconds that a Redis command may take."""


def mongo_client(url: str) -> MongoClient[Document]:
    """A client of `url`: TLS and credentials stand in it, and its `timeoutMS` and the like win over ours.

    Raises `WrongCall` for a URL that cannot be read.
    """
    limits = {"timeoutMS": int(TIME_LIMIT * 1000), "serverSelectionTimeoutMS": SELECTION_MS}
    try:
        return MongoClient(
            url,
            **_unless_given(url, limits),
            retryWrites=True,
            retryReads=True,
            appname="tidegate",
            tz_aware=True,
            read_preference=ReadPreference.PRIMARY,
        )
    except (InvalidURI, PyMongoError) as error:
        raise WrongCall(f"services.mongo_url cannot be read: {error}") from error


def stream_client(url: str) -> MongoClient[Document]:
    """A client for change streams: without an overall time limit, for their wait is the command's own."""
    limits = {"socketTimeoutMS": int(TIME_LIMIT * 1000), "serverSelectionTimeoutMS": SELECTION_MS}
    return MongoClient(
        url,
        timeoutMS=None,
        **_unless_given(url, limits),
        retryReads=True,
        appname="tidegate-feed",
        tz_aware=True,
        maxPoolSize=2,
    )


def _unless_given(url: str, limits: dict[str, int]) -> dict[str, Any]:
    """Those of our time limits that `url` does not set itself (a keyword would win over the URL)."""
    given = {name.lower() for name, _ in parse_qsl(url.partition("?")[2])}
    return {name: value for name, value in limits.items() if name.lower() not in given}


def redis_client(url: str) -> redis.Redis:
    """A client of `url` without retries (a retried script could run twice); `rediss://` is TLS."""
    import redis

    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=SOCKET_TIMEOUT,
            socket_connect_timeout=5.0,
            health_check_interval=15,
            retry=None,
        )
    except ValueError as error:
        raise WrongCall(f"the Redis URL cannot be read: {error}") from error


def check_mongo(client: MongoClient[Document]) -> str:
    """The server's version; raises `ServiceUnreachable`, or `WrongCall` where it is no replica set."""
    try:
        answer = client.admin.command("hello")
        version = str(client.server_info()["version"])
    except PyMongoError as error:
        raise ServiceUnreachable(f"MongoDB does not answer: {error}", remedy="start it: tidegate up") from error
    if "setName" not in answer and answer.get("msg") != "isdbgrid":
        raise WrongCall("MongoDB is not a replica set", remedy="change streams need one; run rs.initiate() once")
    return version
