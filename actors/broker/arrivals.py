"""Wake idle consumers as soon as a message is enqueued, so that no message waits for the next poll of its queue.

Channel: `NAMESPACE:arrivals` (Redis publish/subscribe); the payload is the name of a queue. Redis may lose an
announcement, and the account of this process may lack the right to subscribe: the consumer then finds the message at
its next poll, at most `worker_timeout` later.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable
from typing import Any, Final

import redis
from redis.client import PubSub

from actors.middleware.shutdown import end_wait_on_stop

LISTEN_SECONDS: Final = 5.0
"""Longest wait for one announcement; between two waits the client checks the connection's health."""
RETRY_SECONDS: Final = 1.0
"""Pause before the next attempt to subscribe while Redis is away."""
CLOSE_SECONDS: Final = 1.0
"""Longest wait for the listening thread to end; it is a daemon, and ends with the process."""
_NOBODY: Final = ""
"""No queue has this name: its announcement wakes the listening threads, and no consumer."""


class Arrivals:
    """Announces new messages to all processes, and wakes the waiting consumers of this process."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client = client
        self._channel = f"{namespace}:arrivals"
        self._events: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._listener: threading.Thread | None = None
        self._closed = threading.Event()

    def announce(self, queue_names: Iterable[str]) -> None:
        """Announce that queues have new messages. A Redis error is ignored: consumers find the messages at a poll."""
        with contextlib.suppress(redis.RedisError):
            pipe = self._client.pipeline(transaction=False)
            for name in sorted(set(queue_names)):
                pipe.publish(self._channel, name)
            pipe.execute()

    def event(self, queue_name: str) -> threading.Event:
        """Return the event of a queue; the first call starts the listening thread.

        A new message on the queue sets the event, and so does a request to stop. The consumer clears the event before
        it fetches, so it misses no message that arrives after the fetch.
        """
        with self._lock:
            if self._listener is None:
                self._listener = threading.Thread(target=self._listen, name="arrivals", daemon=True)
                self._listener.start()
            if queue_name not in self._events:
                self._events[queue_name] = threading.Event()
                end_wait_on_stop(self._events[queue_name])
            return self._events[queue_name]

    def close(self) -> None:
        """Stop listening, before the connections are closed."""
        self._closed.set()
        if self._listener is not None:
            self.announce([_NOBODY])
            self._listener.join(CLOSE_SECONDS)

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                with self._subscription() as subscription:
                    subscription.subscribe(self._channel)
                    for event in tuple(self._events.values()):
                        event.set()  # messages may have arrived while nobody listened
                    self._hear(subscription)
            except redis.exceptions.NoPermissionError:
                logging.getLogger("actors.arrivals").warning(
                    "Redis forbids to subscribe to %s; messages wait for the next poll of their queue.", self._channel
                )
                return
            except redis.RedisError:
                self._closed.wait(RETRY_SECONDS)
            except Exception:  # without this thread every message waits for a poll, so it goes on
                if not self._closed.is_set():  # else the connection was closed under this thread, while Redis hung
                    logging.getLogger("actors.arrivals").exception("The subscription to %s ended.", self._channel)
                    self._closed.wait(RETRY_SECONDS)

    def _subscription(self) -> PubSub:
        subscription: PubSub = self._client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        return subscription

    def _hear(self, subscription: PubSub) -> None:
        while not self._closed.is_set():
            message: Any = subscription.get_message(timeout=LISTEN_SECONDS)
            if message is None:
                continue
            event = self._events.get(message["data"].decode(errors="replace"))
            if event is not None:
                event.set()
