"""The cache's Redis as a thing that may be away: commands are answered, or they are not, and nothing is raised.

After a failure nobody asks for a second; then one caller tries again while the others go on without. An outage is
told once when it begins (`cache.away`) and once when it ends (`cache.back`).
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
from engine.stores.cache_scripts import BY_DIGEST

SOCKET_SECONDS: Final = 1.0
"""A batch is 15 commands. Who has waited for so long reads MongoDB instead."""

HEALTH_CHECK_SECONDS: Final = 15
COOL_DOWN: Final = 1.0
"""Seconds without a question after a failure: an outage costs one caller a second of two, and the others nothing."""

T = TypeVar("T")
Reply = Any  # a driver's edge: bytes, int, list, None, or an exception that stands for an error reply


class Tell(Protocol):
    """Says that an event happened (`engine.telemetry.events.emit`)."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Say it."""


def unheard(event: str, /, **fields: object) -> None:
    """Says it to nobody."""


class Away(Exception):
    """The cache's Redis does not answer (kept inside the stores: readers turn to MongoDB)."""


def cache_client(url: str) -> redis.Redis:
    """A client of the cache at `url`: short time limits, no retries; `rediss://` is TLS. Raises `WrongCall`."""
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
        pool.connection_class(**pool.connection_kwargs)  # never connects: the driver reads some options only here
    except (ValueError, TypeError, OSError, redis.RedisError) as error:
        raise WrongCall("services.cache_url cannot be read", remedy="check its options") from error
    return redis.Redis(connection_pool=pool)


@dataclass(frozen=True, slots=True)
class Asked(Generic[T]):
    """What one round of `ahead` asks: `count` commands, as Redis reads them, about something of the caller's."""

    about: T
    commands: bytes
    count: int


class Line:
    """One connection in one pair of hands: commands are written now, their answers are read later."""

    def __init__(self, pool: redis.ConnectionPool) -> None:
        """Raises `redis.RedisError`."""
        self._pool = pool
        self._connection: Any = pool.get_connection()  # redis-py leaves its methods untyped
        self._unread = 0

    def send(self, commands: bytes, count: int) -> None:
        """Write `count` packed commands; what was sent before must have been received. Raises `redis.RedisError`."""
        self._connection.send_packed_command([commands])
        self._unread = count

    def receive(self) -> list[Reply]:
        """The answers to what was sent last; an error reply is an exception among them. Raises `redis.RedisError`."""
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
        """Give the connection back; answers that nobody has read must not meet the next question."""
        if self._unread:
            self._connection.disconnect()
        self._pool.release(self._connection)


class CacheServer:
    """The cache's Redis, shared by the threads of a process; `tell` is told when it goes and comes."""

    def __init__(self, client: redis.Redis, tell: Tell = unheard) -> None:
        self._client = client
        self._tell = tell
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._away = False
        self._again = 0.0

    def ask(self, commands: Sequence[Sequence[bytes]]) -> list[Reply]:
        """The answers to some commands, in one round trip; scripts that the server has forgotten are given again.

        An answer may be an `OutOfMemoryError`. Raises `Away`, also where the server refuses (it loads, is a replica,
        wants a password).
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

    def ahead(self, asked: Iterable[Asked[T]]) -> Iterator[tuple[T, list[Reply] | None]]:
        """The answers to each of `asked` in turn, None where it is away.

        Two are in flight: the next commands are on their way while the caller works on these answers.
        """
        waiting = iter(asked)
        one = next(waiting, None)
        line = self._send(None, one)
        try:
            while one is not None:
                answers = self._receive(line)
                if answers is None:
                    line = None
                following = next(waiting, None)
                line = self._send(line, following)
                yield one.about, answers
                one = following
        finally:
            if line is not None:
                line.close()

    def _open(self) -> Line:
        self._may_ask()
        try:
            return Line(self._client.connection_pool)
        except redis.RedisError as error:
            raise self._lost(error) from error

    def _send(self, line: Line | None, one: Asked[T] | None) -> Line | None:
        """The line on which `one` is on its way; None where it is not."""
        if one is None:
            return line
        try:
            line = line or self._open()
            line.send(one.commands, one.count)
        except Away:
            return None
        except redis.RedisError as error:
            self._lost(error)
            if line is not None:
                line.close()
            return None
        return line

    def _receive(self, line: Line | None) -> list[Reply] | None:
        """The answers that a line brings; None, and the line is closed, where it brings none."""
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
        """Take note that it has answered. Raises `Away` where it refused (a full memory is no refusal)."""
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
            self._again = now + SOCKET_SECONDS + COOL_DOWN  # one tries; it comes back with an answer or a failure

    def _lost(self, error: Exception) -> Away:
        with self._lock:
            was, self._away = self._away, True
            self._again = self._clock.monotonic() + COOL_DOWN
        if not was:
            self._tell("cache.away", reason=type(error).__name__, error=error)
        return Away()

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()


def _exchange(line: Line, commands: Sequence[Sequence[bytes]]) -> list[Reply]:
    line.send(b"".join([packed(one) for one in commands]), len(commands))
    return line.receive()


def packed(command: Sequence[bytes]) -> bytes:
    """A command as Redis reads it."""
    return b"*%d\r\n" % len(command) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in command])
