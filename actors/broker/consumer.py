"""The consumer of a queue: it survives an outage of Redis and keeps sending heartbeats.

It differs from Dramatiq's consumer when something goes wrong. It treats every Redis error as a connection error, so its
thread starts again instead of dying. It puts back ids that this process took and lost. It sends heartbeats while every
worker is busy. When it closes, it returns the messages that it fetched but did not hand out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from dramatiq import Message, MessageProxy
from dramatiq.broker import Consumer
from dramatiq.common import compute_backoff
from dramatiq.errors import DecodeError

from actors.middleware.shutdown import stop_requested

if TYPE_CHECKING:
    from actors.broker.broker import HardenedBroker

HEARTBEAT_SECONDS: Final = 2.0
"""A seventh of the heartbeat timeout (15 s), so several heartbeats may be lost."""
_STOPPING_PAUSE: Final = 0.05
"""Seconds between two polls of a stopping consumer that waits for the last messages to end."""

REMEMBER_FAILURE: Final = """
-- remember failure: keys = {acks, messages}, args = {id, data}
-- acks      set of ids that this process holds
-- messages  hash id -> message; what a dead letter is made of
if redis.call("sismember", KEYS[1], ARGV[1]) == 1 then
    redis.call("hset", KEYS[2], ARGV[1], ARGV[2])
end
"""


class HardenedConsumer(Consumer):
    """Takes messages off one queue.

    `prefetch` limits the messages that are taken and not yet acknowledged; `timeout` is the longest idle pause in ms.
    Raises `dramatiq.errors.ConnectionClosed` from every method while Redis is away.
    """

    def __init__(self, broker: HardenedBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        self.logger = logging.getLogger("actors.consumer")
        self.broker = broker
        self.queue_name = queue_name
        self.prefetch = prefetch
        self.timeout = timeout
        self.misses = 0
        self._fetched: list[Message[Any]] = []
        self._held: set[str] = set()
        self._arrived = broker.arrivals.event(queue_name)
        self.broker.recover(queue_name)

    def __next__(self) -> MessageProxy | None:
        """Return the next message, or None after a pause that grows up to `timeout` and ends when a message arrives."""
        if not self._fetched:
            self._arrived.clear()
            self._fetch()
        if self._fetched:
            self.misses = 0
            message = self._fetched.pop(0)
            self._held.add(redis_id(message))
            return MessageProxy(message)
        self.broker.keep_alive(HEARTBEAT_SECONDS)
        if stop_requested():
            time.sleep(_STOPPING_PAUSE)
        else:
            self.misses, pause = compute_backoff(self.misses, max_backoff=self.timeout)
            self._arrived.wait(pause / 1000)
        return None

    def ack(self, message: MessageProxy) -> None:
        """Acknowledge a finished message and release it."""
        self.broker.do_ack(self.queue_name, redis_id(message))
        self._release(message)

    def nack(self, message: MessageProxy) -> None:
        """Reject a message: it becomes a dead letter that keeps its retries and its failure."""
        data = message.encode()
        self.broker.remember_failure(self.queue_name, redis_id(message), data)
        self.broker.do_nack(self.queue_name, redis_id(message))
        self._release(message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Put back messages that this process will not work on; if that fails, the next consumer finds them."""
        ids = [redis_id(message) for message in messages]
        self._held.difference_update(ids)
        self._put_back(ids)

    def close(self) -> None:
        """Put back messages that were fetched but not handed out: Dramatiq leaves them to the heartbeat timeout."""
        ids = [redis_id(message) for message in self._fetched]
        self._fetched = []
        self._put_back(ids)

    def _put_back(self, ids: list[str]) -> None:
        self.broker.release(self.queue_name, ids)
        if ids:
            self.broker.do_requeue(self.queue_name, *ids)

    def _fetch(self) -> None:
        """Fetch up to the prefetch limit; fetch nothing once the process is asked to stop."""
        room = self.prefetch - len(self._held)
        if room <= 0 or stop_requested():
            return
        for data in self.broker.do_fetch(self.queue_name, room):
            if data is None:
                continue  # an id without a message: somebody emptied the queue
            try:
                message = Message.decode(data)
            except DecodeError:
                self.logger.critical("Unreadable message on %s; moving it to the dead letters.", self.queue_name)
                self.broker.bury(self.queue_name, data)
            else:
                self._fetched.append(message)
        self.broker.hold(self.queue_name, (redis_id(message) for message in self._fetched))

    def _release(self, message: MessageProxy) -> None:
        was_full = len(self._held) >= self.prefetch
        self._held.discard(redis_id(message))
        self.broker.release(self.queue_name, [redis_id(message)])
        if was_full:
            self._arrived.set()  # what waits in the queue can be fetched now


def redis_id(message: Message[Any] | MessageProxy) -> str:
    """Return the id under which Redis stores this copy; a retry keeps its message id but gets another Redis id."""
    return str(message.options["redis_message_id"])
