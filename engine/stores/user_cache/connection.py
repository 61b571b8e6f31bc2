"""The cache's Redis, which may be away: a command either gets an answer or raises `Away`, never a driver error.

After a failure no caller asks for one second. Then one caller tries again while the others continue without the cache.
An outage is logged once when it begins (`cache.away`) and once when it ends (`cache.back`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, OutOfMemoryError
from redis.retry import Retry

from engine.clock import SystemClock
from engine.errors import WrongCall
from engine.service_addresses import REDIS, require_readable
from engine.stores.user_cache.lua_scripts import BY_DIGEST

SOCKET_SECONDS: Final = 1.0
"""Socket time limit in seconds. A batch is 15 commands; after this wait the caller reads MongoDB instead."""

HEALTH_CHECK_SECONDS: Final = 15
COOL_DOWN: Final = 1.0
"""Seconds without a question after a failure: an outage costs one caller one second in two, and the others nothing."""

T = TypeVar("T")
Reply = Any  # the driver's reply: bytes, int, list, None, or an exception that represents an error reply


class Tell(Protocol):
    """Reports that an event happened (`engine.telemetry.events.emit`)."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Report the event."""


def unheard(event: str, /, **fields: object) -> None:
    """Discard the event."""


class Away(Exception):
    """The cache's Redis does not answer. Only the stores see this; readers fall back to MongoDB."""


def cache_client(url: str) -> redis.Redis:
    """Create a client of the cache at `url`: short time limits, no retries; `rediss://` is TLS. Raises `WrongCall`."""
    options: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": HEALTH_CHECK_SECONDS,
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": SOCKET_SECONDS,
        "socket_keepalive": True,
        "protocol": 2,  # version 3 adds push messages, which nothing here reads
        "decode_responses": False,
    }
    require_readable("services.cache_url", url, REDIS)
    try:
        pool = redis.ConnectionPool.from_url(url, **options)
        pool.connection_class(**pool.connection_kwargs)  # never connects: the driver checks some options only here
    except (ValueError, TypeError, OSError, redis.RedisError) as error:
        raise WrongCall("services.cache_url cannot be read", remedy="check its options") from error
    return redis.Redis(connection_pool=pool)


@dataclass(frozen=True, slots=True)
class Round(Generic[T]):
    """One round of `ahead`: `count` commands, packed for Redis, and the caller's value `about` that they belong to."""

    about: T
    commands: bytes
    count: int


class Line:
    """One connection with one user: commands are written now, their answers are read later."""

    def __init__(self, pool: redis.ConnectionPool) -> None:
        """Take a connection from `pool`. Raises `redis.RedisError`."""
        self._pool = pool
        self._connection: Any = pool.get_connection()  # redis-py leaves its methods untyped
        self._unread = 0

    def send(self, commands: bytes, count: int) -> None:
        """Write `count` packed commands; earlier commands must have been received. Raises `redis.RedisError`."""
        self._connection.send_packed_command([commands])
        self._unread = count

    def receive(self) -> list[Reply]:
        """Return the answers to the last `send`; an error reply is an exception in it. Raises `redis.RedisError`."""
        answers = []
        read = self._connection.read_response
        while self._unread:
            try:
                answers.append(read())
            except redis.ResponseError as error:
                answers.append(error)
            self._unread -= 1
        return answers

    def close(self) -> None:
        """Return the connection; disconnect it first if answers are unread, so no other question receives them."""
        if self._unread:
            self._connection.disconnect()
        self._pool.release(self._connection)


class CacheServer:
    """The cache's Redis, shared by the threads of a process; reports outages and recoveries to `tell`."""

    def __init__(self, client: redis.Redis, tell: Tell = unheard) -> None:
        self._client = client
        self._tell = tell
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._away = False
        self._again = 0.0

    def ask(self, commands: Sequence[Sequence[bytes]]) -> list[Reply]:
        """Send commands in one round trip and return the answers; reload scripts that the server has forgotten.

        An answer may be an `OutOfMemoryError`. Raises `Away`, also if the server refuses (it is loading, is a replica,
        or wants a password).
        """
        line = self._open()
        try:
            answers = _exchange(line, commands)
            unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if unknown:
                scripts = sorted({commands[place][1] for place in unknown})
                again = [*(BY_DIGEST[digest].load() for digest in scripts), *(commands[place] for place in unknown)]
                for place, answer in zip(unknown, _exchange(line, again)[len(scripts) :], strict=True):
                    answers[place] = answer
        except redis.RedisError as error:
            raise self._lost(error) from error
        finally:
            line.close()
        self._answered(answers)
        return answers

    def ahead(self, rounds: Iterable[Round[T]]) -> Iterator[tuple[T, list[Reply] | None]]:
        """Yield the answers to each of the `rounds` in turn, or None if Redis is away.

        Two rounds are in flight: the next commands are on their way while the caller processes the current answers.
        """
        waiting = iter(rounds)
        round_ = next(waiting, None)
        line = self._send(None, round_)
        try:
            while round_ is not None:
                answers = self._receive(line)
                if answers is None:
                    line = None
                following = next(waiting, None)
                line = self._send(line, following)
                yield round_.about, answers
                round_ = following
        finally:
            if line is not None:
                line.close()

    def _open(self) -> Line:
        self._may_ask()
        try:
            return Line(self._client.connection_pool)
        except redis.RedisError as error:
            raise self._lost(error) from error

    def _send(self, line: Line | None, round_: Round[T] | None) -> Line | None:
        """Send one round; return the line that carries it, or None if it could not be sent."""
        if round_ is None:
            return line
        try:
            line = line or self._open()
            line.send(round_.commands, round_.count)
        except Away:
            return None
        except redis.RedisError as error:
            self._lost(error)
            if line is not None:
                line.close()
            return None
        return line

    def _receive(self, line: Line | None) -> list[Reply] | None:
        """Return the answers from a line; close the line and return None if it fails."""
        if line is None:
            return None
        try:
            answers = line.receive()
            self._answered(answers)
        except Away:
            line.close()
            return None
        except redis.RedisError as error:
            line.close()
            self._lost(error)
            return None
        return answers

    def _answered(self, answers: Sequence[Reply]) -> None:
        """Note that Redis has answered. Raises `Away` if an answer is a refusal (full memory is not a refusal)."""
        for answer in answers:
            if isinstance(answer, redis.ResponseError) and not isinstance(answer, OutOfMemoryError):
                raise self._lost(answer) from answer
        if self._away:
            with self._lock:
                was, self._away = self._away, False
            if was:
                self._tell("cache.back")

    def _may_ask(self) -> None:
        if not self._away:
            return
        with self._lock:
            now = self._clock.monotonic()
            if self._away and now < self._again:
                raise Away
            self._again = now + SOCKET_SECONDS + COOL_DOWN  # one caller tries; it returns with an answer or a failure

    def _lost(self, error: Exception) -> Away:
        with self._lock:
            was, self._away = self._away, True
            self._again = self._clock.monotonic() + COOL_DOWN
        if not was:
            self._tell("cache.away", reason=type(error).__name__, error=error)
        return Away()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _exchange(line: Line, commands: Sequence[Sequence[bytes]]) -> list[Reply]:
    line.send(b"".join([packed(command) for command in commands]), len(commands))
    return line.receive()


def packed(command: Sequence[bytes]) -> bytes:
    """Encode a command for Redis."""
    return b"*%d\r\n" % len(command) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in command])
