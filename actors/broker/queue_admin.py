"""Depths and dead letters of the queues, for `tidegate queue list|deadletters|replay|drop`.

Redis keeps dead letters for 7 days. They show which message failed; MongoDB holds the work it was about.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import redis
from dramatiq import Message
from dramatiq.common import dq_name, q_name, xq_name
from dramatiq.errors import DecodeError

from actors.broker.broker import CHUNK, HardenedBroker
from engine.clock import Instant
from engine.errors import NotFound
from engine.stores.driver_errors import redis_trouble

_PER_LIFE: Final = frozenset(
    {"retries", "failure", "traceback", "requeue_timestamp", "eta", "hops", "redis_message_id"}
)
"""Options that belong to one attempt of a message; a replayed message starts without them."""

REPLAY: Final = """
-- replay: keys = {queue, messages, dead, dead messages}, args = {dead id, new id, new data}
-- queue          list of ids                  messages       hash id -> message
-- dead           sorted set of ids by time    dead messages  hash id -> message
if redis.call("zrem", KEYS[3], ARGV[1]) == 0 then
    return 0
end
redis.call("hdel", KEYS[4], ARGV[1])
redis.call("hset", KEYS[2], ARGV[2], ARGV[3])
redis.call("rpush", KEYS[1], ARGV[2])
return 1
"""


LaneOf: TypeAlias = Callable[[Message[Any]], str | None]


class Queues(Protocol):
    """Where the queues are: a broker, or only its Redis and the prefix of its keys."""

    @property
    def client(self) -> redis.Redis:
        """The client of the broker's Redis."""

    @property
    def namespace(self) -> str:
        """The prefix of all keys."""


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """Message counts of one queue: ready, delayed, taken by a process, and dead letters."""

    queue: str
    ready: int
    delayed: int
    taken: int
    dead: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up: queue, actor, arguments, time of death (system time), retries and failure.

    `actor` is empty for an unreadable message; it can only be dropped.
    """

    id: str
    queue: str
    actor: str
    args: tuple[object, ...]
    died_at: Instant
    retries: int
    failure: str


def depths(broker: HardenedBroker, queues: Iterable[str] | None = None) -> list[QueueDepth]:
    """Return the depth of each queue (default: all declared), in one round trip. Raises `ServiceUnreachable`."""
    return depths_at(broker, broker.queues if queues is None else queues)


def depths_at(broker: Queues, queues: Iterable[str]) -> list[QueueDepth]:
    """Return the depth of each queue, in one round trip. Raises `ServiceUnreachable`."""
    names = sorted(queues)
    pipe = broker.client.pipeline(transaction=False)
    for name in names:
        key = f"{broker.namespace}:{name}"
        pipe.llen(key)
        pipe.hlen(f"{broker.namespace}:{dq_name(name)}.msgs")
        pipe.hlen(f"{key}.msgs")
        pipe.zcard(f"{broker.namespace}:{xq_name(name)}")
    try:
        counts = pipe.execute()
    except redis.RedisError as error:
        raise redis_trouble(error, "the broker") from error
    rows = (counts[start : start + 4] for start in range(0, len(counts), 4))
    return [
        QueueDepth(name, ready, delayed, max(stored - ready, 0), dead)
        for name, (ready, delayed, stored, dead) in zip(names, rows, strict=True)
    ]


def oldest(broker: Queues, queues: Iterable[str]) -> dict[str, float]:
    """Return how long (s) the first ready message of each queue has been there, without those that have none.

    By the clock of Redis, in two round trips. Raises `ServiceUnreachable`.
    """
    names = sorted(queues)
    pipe = broker.client.pipeline(transaction=False)
    pipe.time()
    for name in names:
        pipe.lindex(f"{broker.namespace}:{name}", 0)
    try:
        (seconds, micros), *first = pipe.execute()
        waiting = [(name, key) for name, key in zip(names, first, strict=True) if key is not None]
        stored = broker.client.pipeline(transaction=False)
        for name, key in waiting:
            stored.hget(f"{broker.namespace}:{name}.msgs", key)
        found = stored.execute() if waiting else []
    except redis.RedisError as error:
        raise redis_trouble(error, "the broker") from error
    now = seconds * 1_000 + micros // 1_000
    messages = [(name, _decoded(data)) for (name, _), data in zip(waiting, found, strict=True) if data is not None]
    return {
        name: max(0.0, (now - message.message_timestamp) / 1e3) for name, message in messages if message is not None
    }


def removed(broker: HardenedBroker, lanes: Collection[str]) -> list[str]:
    """Return the queues that Redis holds and whose lanes are not in `lanes` (any more). Raises `ServiceUnreachable`."""
    found: set[str] = set()
    try:
        for key in broker.client.scan_iter(match=f"{broker.namespace}:*.msgs", count=1_000):
            name = key.decode().removeprefix(f"{broker.namespace}:").removesuffix(".msgs")
            found.add(q_name(name))
    except redis.RedisError as error:
        raise redis_trouble(error, "the broker") from error
    return sorted(found - set(lanes))


def sweep(broker: HardenedBroker, queue: str, lane_of: LaneOf) -> tuple[int, int]:
    """Move what waits in a removed lane's queue; return how many messages moved, and how many dead letters expired.

    `lane_of` returns the lane where a message belongs now; None if its work is done or gone. A copy is enqueued there
    before the original is deleted, so a crash repeats a wake-up but loses none. Messages that a living process has
    taken stay: it moves them itself. Raises `ServiceUnreachable` and `dramatiq.errors.BrokerError`.
    """
    ready, stored, dead, dead_stored = _keys(broker, queue)
    moved = 0
    try:
        for name, messages in ((ready, stored), (f"{ready}.DQ", f"{ready}.DQ.msgs")):
            ids: Any = broker.client.lrange(name, 0, CHUNK - 1)
            moved += _move(broker, name, messages, [*ids, *_orphans(broker, name, messages, ids)], lane_of)
        cutoff = int(broker.client.time()[0]) * 1_000 - broker.dead_message_ttl
        expired: Any = broker.client.zrangebyscore(dead, 0, cutoff)
        if expired:
            broker.client.hdel(dead_stored, *expired)
            broker.client.zrem(dead, *expired)
    except redis.RedisError as error:
        raise redis_trouble(error, "the broker") from error
    return moved, len(expired)


def _orphans(broker: HardenedBroker, name: str, messages: str, waiting: Collection[bytes]) -> list[bytes]:
    """Return the messages of a queue that no living process holds: their holders died while nobody served the lane.

    Forget what the dead ones held.
    """
    queue = name.removeprefix(f"{broker.namespace}:")
    cutoff = int(broker.client.time()[0]) * 1_000 - broker.heartbeat_timeout
    held: set[bytes] = set()
    holders: Any = broker.client.zrange(f"{broker.namespace}:__heartbeats__", 0, -1, withscores=True)
    for holder, beat in holders:
        acks = f"{broker.namespace}:__acks__.{holder.decode()}.{queue}"
        if beat > cutoff:
            taken: Any = broker.client.smembers(acks)
            held |= taken
        else:
            broker.client.delete(acks)
    everything: Any = broker.client.hkeys(messages)
    return [key for key in everything if key not in held and key not in set(waiting)]


def _move(broker: HardenedBroker, name: str, messages: str, ids: Sequence[bytes], lane_of: LaneOf) -> int:
    if not ids:
        return 0
    stored: Any = broker.client.hmget(messages, ids)
    copies: list[Message[Any]] = []
    for data in stored:
        message = None if data is None else _decoded(data)
        lane = None if message is None else lane_of(message)
        if message is not None and lane is not None:
            copies.append(_reborn(message, lane))
    broker.enqueue_many(copies)
    pipe = broker.client.pipeline(transaction=True)
    for key in ids:
        pipe.lrem(name, 0, key.decode())
    pipe.hdel(messages, *ids)
    pipe.execute()
    return len(ids)


def list_dead(broker: HardenedBroker, queue: str, *, limit: int = 100) -> list[DeadLetter]:
    """Return the newest `limit` dead letters of `queue`, newest first. Raises `ServiceUnreachable`."""
    dead, messages = _keys(broker, queue)[2:]
    try:
        ranked: Any = broker.client.zrevrange(dead, 0, limit - 1, withscores=True)
        stored: Any = broker.client.hmget(messages, [key for key, _ in ranked]) if ranked else []
    except redis.RedisError as error:
        raise redis_trouble(error, "the broker") from error
    return [
        _letter(queue, key.decode(), int(score), data)
        for (key, score), data in zip(ranked, stored, strict=True)
        if data
    ]


def replay(broker: HardenedBroker, queue: str, ids: Iterable[str] | None = None) -> int:
    """Send dead letters (default: all) again with their retries reset; return how many.

    A script moves each in one step, so two people who replay at once send nothing twice. Raises `NotFound` for an
    unknown id and `ServiceUnreachable`; unreadable ones stay.
    """
    _known(broker, queue)
    keys = _keys(broker, queue)
    script = broker.client.register_script(REPLAY)
    moved = 0
    try:
        for key, data in _chosen(broker, queue, ids):
            message = _decoded(data)
            if message is not None:
                fresh = _reborn(message, queue)
                new_id = str(fresh.options["redis_message_id"])
                moved += int(script(keys=keys, args=[key, new_id, fresh.encode()]))
    except redis.RedisError as error:
        raise redis_trouble(error, "the broker") from error
    return moved


def drop(broker: HardenedBroker, queue: str, ids: Iterable[str] | None = None) -> int:
    """Delete dead letters (default: all); return how many. Raises `NotFound` and `ServiceUnreachable`."""
    dead, messages = _keys(broker, queue)[2:]
    try:
        chosen = [key for key, _ in _chosen(broker, queue, ids)]
        if not chosen:
            return 0
        pipe = broker.client.pipeline(transaction=True)
        pipe.zrem(dead, *chosen)
        pipe.hdel(messages, *chosen)
        return int(pipe.execute()[0])
    except redis.RedisError as error:
        raise redis_trouble(error, "the broker") from error


def _keys(broker: HardenedBroker, queue: str) -> list[str]:
    name = f"{broker.namespace}:{q_name(queue)}"
    dead = f"{broker.namespace}:{xq_name(queue)}"
    return [name, f"{name}.msgs", dead, f"{dead}.msgs"]


def _known(broker: HardenedBroker, queue: str) -> None:
    if q_name(queue) not in broker.get_declared_queues() and not broker.client.exists(*_keys(broker, queue)):
        raise NotFound(f"no lane is called {queue!r}, and Redis holds no queue of that name")


def _chosen(broker: HardenedBroker, queue: str, ids: Iterable[str] | None) -> list[tuple[str, bytes]]:
    messages = _keys(broker, queue)[3]
    if ids is None:
        return [(key.decode(), data) for key, data in broker.client.hscan_iter(messages, count=1_000)]
    chosen = list(ids)
    stored = broker.client.hmget(messages, chosen) if chosen else []
    for key, data in zip(chosen, stored, strict=True):
        if data is None:
            raise NotFound(
                f"no dead letter {key} on {queue}", remedy=f"`tidegate queue deadletters {queue}` lists them."
            )
    return list(zip(chosen, stored, strict=True))


def _decoded(data: bytes) -> Message[Any] | None:
    try:
        return Message.decode(data)
    except DecodeError:
        return None


def _reborn(message: Message[Any], queue: str) -> Message[Any]:
    kept = {name: value for name, value in message.options.items() if name not in _PER_LIFE}
    fresh: Message[Any] = Message(
        queue_name=q_name(queue), actor_name=message.actor_name, args=message.args, kwargs=message.kwargs, options=kept
    )
    return fresh.copy(message_id=message.message_id, options={"redis_message_id": fresh.message_id})


def _letter(queue: str, key: str, died_at: Instant, data: bytes) -> DeadLetter:
    message = _decoded(data)
    if message is None:
        return DeadLetter(key, queue, "", (), died_at, 0, "unreadable")
    options = message.options
    retries = int(options.get("retries", 0))
    return DeadLetter(
        key, queue, message.actor_name, tuple(message.args), died_at, retries, str(options.get("failure", ""))
    )
