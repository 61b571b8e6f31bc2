"""The Redis broker, hardened: see `docs/broker.md` for what each difference is for and which test shows it.

Redis only rings the bell (`docs/architecture.md`), so nothing here is needed for correctness; it is needed so
that a lost bell is rare, an outage of Redis ends with Redis, and no thread dies of one.
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

from actors import lives
from actors.consumer import REMEMBER_FAILURE, HardenedConsumer
from actors.middleware import default_middleware
from actors.redis_client import connect
from engine.clock import millis

NAMESPACE: Final = "tidegate"
HEARTBEAT_TIMEOUT_MS: Final = 15_000
"""After this long without a heartbeat a process counts as dead (stock: 60 s)."""
MAINTENANCE_CHANCE: Final = 50_000
"""Per million fetches (stock: 1,000 per million commands)."""
MAINTENANCE_SECONDS: Final = 2.0
"""And at least this often per queue and process: a lottery alone has no upper bound on an idle queue."""
RECONNECT_GRACE_SECONDS: Final = 10.0
"""No maintenance for this long after a connection error or a start: after an outage every heartbeat is old, and
whoever came back first would hand out the work of all the living (a consumer tries again every 3 s, a connect takes
up to 3 s)."""
MAX_DELAY: Final = timedelta(minutes=10)
"""The delay queue is first-in-first-out and held in memory: it is for retries, long waits are `due_at` in MongoDB."""
CHUNK: Final = 1_000
"""Messages per pipeline: about 600 kB of commands."""


class HardenedBroker(RedisBroker):
    """Dramatiq's Redis broker with connection errors that are recognised, lanes that must exist, and work put back.

    Raises `dramatiq.errors.ConnectionClosed` for every error of Redis, `QueueNotFound` for an undeclared queue.
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
        self.broker_id = lives.new_id()
        self.max_delay = max_delay
        self._put_back = client.register_script(lives.PUT_BACK)
        self._remember_failure = client.register_script(REMEMBER_FAILURE)
        self._lock = threading.Lock()
        self._held: dict[str, set[str]] = {}
        self._next_maintenance: dict[str, float] = {}
        self._last_command = time.monotonic()
        self._quiet_until = 0.0
        self._clock_offset = 0
        self.process_booted = False
        self._hush()

    @property
    def consumer_class(self) -> type[HardenedConsumer]:
        """What `consume` builds."""
        return HardenedConsumer

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueue on a declared queue, `delay` ms from now (at most `max_delay`, else `ValueError`)."""
        self._refuse_unknown(message.queue_name)
        if delay is not None and delay > millis(self.max_delay):
            raise ValueError(f"a delay of {delay} ms is too long for a queue; write due_at into MongoDB")
        return super().enqueue(message, delay=delay)

    def enqueue_many(self, messages: Iterable[Message[Any]]) -> list[Message[Any]]:
        """Enqueue many in few round trips, through the broker's own script: about six times as fast as one by one.

        Not atomic: after `ConnectionClosed` any of them may be queued. Send them again, a doubled bell does no harm.
        """
        prepared = []
        for message in messages:
            self._refuse_unknown(message.queue_name)
            copy = message.copy(options={"redis_message_id": _new_id()})
            self.emit_before("enqueue", copy, None)
            prepared.append(copy)
        for start in range(0, len(prepared), CHUNK):
            self._enqueue_chunk(prepared[start : start + CHUNK])
        for copy in prepared:
            self.emit_after("enqueue", copy, None)
        return prepared

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
        self.client.connection_pool.disconnect()

    # -- what the consumers need ---------------------------------------------------------------------------------

    def hold(self, queue_name: str, ids: Iterable[str]) -> None:
        """These ids are in this process's hands."""
        with self._lock:
            self._held.setdefault(queue_name, set()).update(ids)

    def release(self, queue_name: str, ids: Iterable[str]) -> None:
        """These ids are acknowledged, rejected or put back."""
        with self._lock:
            self._held.setdefault(queue_name, set()).difference_update(ids)

    def recover(self, queue_name: str) -> None:
        """Put back the ids that Redis says this process took and that it does not hold: their delivery was lost.

        A new consumer of a delay queue holds none: its thread has dropped whatever it had in memory.
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
        """Put back at once what processes of this machine held that are known to be dead, e.g. our predecessor."""
        try:
            known: Any = self.client.zrange(f"{self.namespace}:__heartbeats__", 0, -1)
            for dead in filter(lives.is_known_dead, (member.decode() for member in known)):
                queue = f"{self.namespace}:{queue_name}"
                keys = [f"{self.namespace}:__acks__.{dead}.{queue_name}", f"{queue}.msgs", queue]
                if count := self._put_back(keys=keys):
                    self.logger.info("Putting back %s messages of a dead process on %s.", count, queue_name)
        except redis.RedisError as error:
            raise self._closed(error) from error

    def keep_alive(self, after_seconds: float) -> None:
        """Send a heartbeat if no command did it in the last `after_seconds`: a full prefetch sends none."""
        if time.monotonic() - self._last_command >= after_seconds:
            try:
                self.client.zadd(f"{self.namespace}:__heartbeats__", {self.broker_id: self._redis_millis()})
            except redis.RedisError as error:
                raise self._closed(error) from error
            self._last_command = time.monotonic()

    def remember_failure(self, queue_name: str, message_id: str, data: bytes) -> None:
        """Store the message as it is now, so that its dead letter tells its retries and its failure."""
        acks = f"{self.namespace}:__acks__.{self.broker_id}.{queue_name}"
        messages = f"{self.namespace}:{queue_name}.msgs"
        try:
            self._remember_failure(keys=[acks, messages], args=[message_id, data])
        except redis.RedisError as error:
            raise self._closed(error) from error

    def bury(self, queue_name: str, data: bytes) -> None:
        """Move a message that nobody can decode to the dead letters; found by its content, for it has no known id."""
        for message_id, stored in self.client.hscan_iter(f"{self.namespace}:{queue_name}.msgs"):
            if stored == data:
                self.do_nack(queue_name, message_id)

    # -- the script ----------------------------------------------------------------------------------------------

    def _arguments(self, command: str, queue_name: str, *args: str | bytes | int) -> list[str | bytes | int]:
        """What `dispatch.lua` of Dramatiq 2.2.1 expects, in its order."""
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
        if now < self._quiet_until:
            return False
        with self._lock:
            due = now >= self._next_maintenance.get(queue_name, 0.0)
            if due:
                self._next_maintenance[queue_name] = now + MAINTENANCE_SECONDS * random.uniform(0.75, 1.25)
        return due or bool(self._should_do_maintenance("fetch"))

    def _redis_millis(self) -> int:
        """Redis's own clock, as last compared: one machine that is a minute slow must not count as dead."""
        return current_millis() + self._clock_offset

    def _closed(self, error: redis.RedisError) -> ConnectionClosed:
        """Every error of Redis, a time-out or a full disk too, is one that may pass: the caller tries again."""
        self._hush()
        return ConnectionClosed(error)

    def _hush(self) -> None:
        grace = min(RECONNECT_GRACE_SECONDS, self.heartbeat_timeout / 1000)
        self._quiet_until = time.monotonic() + grace

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
    """A broker on `url` that knows `lanes` (those of its actors are added when they are declared).

    `security` takes what `connect` takes: ca_certs, certfile, keyfile, username, password. Connects lazily.
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
