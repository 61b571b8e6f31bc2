"""The Redis broker, hardened: `docs/broker.md` gives the purpose of each difference to Dramatiq's and its test.

Redis only carries wake-ups (`docs/architecture.md`), so correctness needs nothing of this module. The module makes lost
wake-ups rare, lets the engine recover as soon as Redis is back, and keeps threads alive through an outage of Redis.
"""

# mypy: allow-untyped-calls
# (the constructors of Dramatiq's errors and brokers are untyped)
from __future__ import annotations

import difflib
import random
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

import redis
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import current_millis, q_name
from dramatiq.errors import ConnectionClosed, QueueNotFound
from dramatiq.middleware import Middleware

from actors.broker import process_ids
from actors.broker.arrivals import Arrivals
from actors.broker.consumer import REMEMBER_FAILURE, HardenedConsumer
from actors.broker.redis_client import connect
from actors.middleware import default_middleware
from engine.clock import millis

NAMESPACE: Final = "tidegate"
HEARTBEAT_TIMEOUT_MS: Final = 15_000
"""Milliseconds without a heartbeat after which a process counts as dead (stock: 60 s)."""
MAINTENANCE_CHANCE: Final = 50_000
"""Maintenance runs per million fetches (stock: 1,000 per million commands)."""
MAINTENANCE_SECONDS: Final = 2.0
"""Each queue and process also runs maintenance at least this often.

Chance alone sets no upper bound on an idle queue.
"""
RECONNECT_GRACE_SECONDS: Final = 10.0
"""No maintenance for this long after a start or a connection error.

After an outage every heartbeat is old, and the first process to return would hand out the work of all living ones. A
consumer retries every 3 s, and a connect takes up to 3 s.
"""
MAX_DELAY: Final = timedelta(minutes=10)
"""Longest delay.

The delay queue is first-in-first-out and held in memory: it is for retries. A long wait is a `due_at` in MongoDB.
"""
CHUNK: Final = 1_000
"""Messages per pipeline: about 600 kB of commands."""


class HardenedBroker(RedisBroker):
    """Dramatiq's Redis broker that recognises connection errors, refuses unknown lanes and puts lost work back.

    Raises `dramatiq.errors.ConnectionClosed` for every error of Redis and `QueueNotFound` for an undeclared queue.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        middleware: list[Middleware],
        namespace: str = NAMESPACE,
        heartbeat_timeout: int = HEARTBEAT_TIMEOUT_MS,
        maintenance_chance: int = MAINTENANCE_CHANCE,
        max_delay: timedelta = MAX_DELAY,
    ) -> None:
        super().__init__(
            client=client,
            middleware=middleware,
            namespace=namespace,
            heartbeat_timeout=heartbeat_timeout,
            maintenance_chance=maintenance_chance,
        )
        self.broker_id = process_ids.new_id()
        self.max_delay = max_delay
        self.arrivals = Arrivals(client, namespace)
        self._put_back = client.register_script(process_ids.PUT_BACK)
        self._remember_failure = client.register_script(REMEMBER_FAILURE)
        self._lock = threading.Lock()
        self._held: dict[str, set[str]] = {}
        self._next_maintenance: dict[str, float] = {}
        self._last_command = time.monotonic()
        self.quiet_until = 0.0
        self._clock_offset = 0
        self.process_booted = False
        self._hush()

    @property
    def consumer_class(self) -> type[HardenedConsumer]:
        """The class that `consume` builds."""
        return HardenedConsumer

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueue on a declared queue, `delay` ms from now (at most `max_delay`, else `ValueError`)."""
        self._refuse_unknown(message.queue_name)
        if delay is not None and delay > millis(self.max_delay):
            raise ValueError(f"a delay of {delay} ms is too long for a queue; write due_at into MongoDB")
        enqueued = super().enqueue(message, delay=delay)
        if delay is None:
            self.arrivals.announce([message.queue_name])
        return enqueued

    def enqueue_many(self, messages: Iterable[Message[Any]]) -> list[Message[Any]]:
        """Enqueue many messages in few round trips, through the broker's own script.

        This is about six times as fast as one by one. It is not atomic: after `ConnectionClosed` any of the messages
        may be queued. Send them again; a second wake-up does no harm.
        """
        prepared = []
        for message in messages:
            self._refuse_unknown(message.queue_name)
            copy = message.copy(options={"redis_message_id": _new_id()})
            self.emit_before("enqueue", copy, None)
            prepared.append(copy)
        for start in range(0, len(prepared), CHUNK):
            chunk = prepared[start : start + CHUNK]
            self._enqueue_chunk(chunk)
            self.arrivals.announce(message.queue_name for message in chunk)
        for copy in prepared:
            self.emit_after("enqueue", copy, None)
        return prepared

    def close(self) -> None:
        """Close the connections."""
        self.arrivals.close()
        self.client.close()
        self.client.connection_pool.disconnect()

    # -- what the consumers need ---------------------------------------------------------------------------------

    def hold(self, queue_name: str, ids: Iterable[str]) -> None:
        """Note that this process holds these ids."""
        with self._lock:
            self._held.setdefault(queue_name, set()).update(ids)

    def release(self, queue_name: str, ids: Iterable[str]) -> None:
        """Note that these ids are acknowledged, rejected or put back."""
        with self._lock:
            self._held.setdefault(queue_name, set()).difference_update(ids)

    def recover(self, queue_name: str) -> None:
        """Put back the ids that Redis lists under this process but that it does not hold: their delivery was lost.

        A new consumer of a delay queue holds none: its thread has dropped everything it had in memory.
        """
        acks = f"{self.namespace}:__acks__.{self.broker_id}.{queue_name}"
        try:
            seconds, micros = self.client.time()
            self._clock_offset = seconds * 1_000 + micros // 1_000 - current_millis()
            members: Any = self.client.smembers(acks)
        except redis.RedisError as error:
            raise self._closed(error) from error
        taken = {member.decode() for member in members}
        with self._lock:
            if queue_name.endswith(".DQ"):
                self._held[queue_name] = set()
            lost = taken - self._held.get(queue_name, set())
        if lost:
            self.logger.warning("Putting %d lost messages back on %s.", len(lost), queue_name)
            self.do_requeue(queue_name, *sorted(lost))
        self._inherit(queue_name)

    def _inherit(self, queue_name: str) -> None:
        """Put back the messages of this machine's processes that are known to be dead, e.g. our predecessor."""
        try:
            known: Any = self.client.zrange(f"{self.namespace}:__heartbeats__", 0, -1)
            for dead in filter(process_ids.is_known_dead, (member.decode() for member in known)):
                queue = f"{self.namespace}:{queue_name}"
                keys = [f"{self.namespace}:__acks__.{dead}.{queue_name}", f"{queue}.msgs", queue]
                if count := self._put_back(keys=keys):
                    self.logger.info("Putting back %s messages of a dead process on %s.", count, queue_name)
        except redis.RedisError as error:
            raise self._closed(error) from error

    def keep_alive(self, after_seconds: float) -> None:
        """Send a heartbeat unless a command sent one in the last `after_seconds`.

        A consumer with a full prefetch sends no command.
        """
        if time.monotonic() - self._last_command >= after_seconds:
            try:
                self.client.zadd(f"{self.namespace}:__heartbeats__", {self.broker_id: self._redis_millis()})
            except redis.RedisError as error:
                raise self._closed(error) from error
            self._last_command = time.monotonic()

    def remember_failure(self, queue_name: str, message_id: str, data: bytes) -> None:
        """Store the message as it is now, so that its dead letter shows its retries and its failure."""
        acks = f"{self.namespace}:__acks__.{self.broker_id}.{queue_name}"
        messages = f"{self.namespace}:{queue_name}.msgs"
        try:
            self._remember_failure(keys=[acks, messages], args=[message_id, data])
        except redis.RedisError as error:
            raise self._closed(error) from error

    def bury(self, queue_name: str, data: bytes) -> None:
        """Move an undecodable message to the dead letters; search by content, because its id is unknown."""
        for message_id, stored in self.client.hscan_iter(f"{self.namespace}:{queue_name}.msgs"):
            if stored == data:
                self.do_nack(queue_name, message_id)

    # -- the script ----------------------------------------------------------------------------------------------

    def _arguments(self, command: str, queue_name: str, *args: str | bytes | int) -> list[str | bytes | int]:
        """Return the arguments that `dispatch.lua` of Dramatiq 2.2.1 expects, in its order."""
        return [
            command,
            self._redis_millis(),
            queue_name,
            self.broker_id,
            self.heartbeat_timeout,
            self.dead_message_ttl,
            int(command == "fetch" and self._maintenance_due(queue_name)),
            self._max_unpack_size(),
            *args,
        ]

    def _dispatch(self, command: str) -> Any:
        def call(queue_name: str, *args: str | bytes | int) -> Any:
            try:
                result = self.scripts["dispatch"](
                    args=self._arguments(command, queue_name, *args), keys=[self.namespace]
                )
            except redis.RedisError as error:
                raise self._closed(error) from error
            self._last_command = time.monotonic()
            return result

        return call

    def _enqueue_chunk(self, messages: Sequence[Message[Any]]) -> None:
        pipe = self.client.pipeline(transaction=False)
        try:
            for message in messages:
                stored = (message.options["redis_message_id"], message.encode())
                arguments = self._arguments("enqueue", message.queue_name, *stored)
                self.scripts["dispatch"](args=arguments, keys=[self.namespace], client=pipe)
            pipe.execute()
        except redis.RedisError as error:
            raise self._closed(error) from error

    def _maintenance_due(self, queue_name: str) -> bool:
        now = time.monotonic()
        if now < self.quiet_until:
            return False
        with self._lock:
            due = now >= self._next_maintenance.get(queue_name, 0.0)
            if due:
                self._next_maintenance[queue_name] = now + MAINTENANCE_SECONDS * random.uniform(0.75, 1.25)
        return due or bool(self._should_do_maintenance("fetch"))

    def _redis_millis(self) -> int:
        """Return the time by Redis's clock, as last compared.

        A machine whose clock is a minute slow must not count as dead.
        """
        return current_millis() + self._clock_offset

    def _closed(self, error: redis.RedisError) -> ConnectionClosed:
        """Wrap an error of Redis, also a time-out or a full disk, as one that may pass: the caller tries again."""
        self._hush()
        return ConnectionClosed(error)

    def _hush(self) -> None:
        grace = min(RECONNECT_GRACE_SECONDS, self.heartbeat_timeout / 1000)
        self.quiet_until = time.monotonic() + grace

    def _refuse_unknown(self, queue_name: str) -> None:
        if q_name(queue_name) not in self.queues:
            near = difflib.get_close_matches(queue_name, self.queues, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise QueueNotFound(f"no lane is called {queue_name!r}{hint}; declared: {', '.join(sorted(self.queues))}")


def build_broker(
    url: str,
    *,
    lanes: Iterable[str] = (),
    middleware: list[Middleware] | None = None,
    namespace: str = NAMESPACE,
    heartbeat_timeout: int = HEARTBEAT_TIMEOUT_MS,
    maintenance_chance: int = MAINTENANCE_CHANCE,
    max_delay: timedelta = MAX_DELAY,
    **security: str | None,
) -> HardenedBroker:
    """Return a broker on `url` that knows `lanes` (declaring actors adds their lanes).

    `security` takes the options of `connect`: ca_certs, certfile, keyfile, username, password. The broker connects
    lazily.
    """
    broker = HardenedBroker(
        connect(url, **security),
        middleware=default_middleware() if middleware is None else middleware,
        namespace=namespace,
        heartbeat_timeout=heartbeat_timeout,
        maintenance_chance=maintenance_chance,
        max_delay=max_delay,
    )
    for lane in lanes:
        broker.declare_queue(lane)
    return broker


def _new_id() -> str:
    return str(uuid.uuid4())
