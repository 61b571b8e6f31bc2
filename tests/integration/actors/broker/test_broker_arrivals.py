"""An idle consumer is woken by a message that arrives; without announcements it finds the message at its next poll."""

from __future__ import annotations

import threading
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
from dramatiq import Message

from actors.middleware import clear_stop, request_stop

rig = SimpleNamespace(**run_path(str(Path(__file__).parents[3] / "stock" / "rig.py")))
valkey = rig.valkey

AFTER_MANY_POLLS = 20
"""Polls without a message after which the next pause is `TIMEOUT`, longer than any test runs."""
TIMEOUT = 3_600_000


@pytest.fixture
def broker(valkey):
    broker = rig.hardened(valkey.url, namespace="rig")
    yield broker
    broker.close()
    clear_stop()


def send(broker, *numbers):
    for number in numbers:
        broker.enqueue(Message(queue_name="lane", actor_name="work", args=(number,), kwargs={}, options={}))


class Waiter:
    """A consumer in its longest pause, waiting in a thread of its own."""

    def __init__(self, consumer):
        self.consumer = consumer
        self.consumer.misses = AFTER_MANY_POLLS
        self.thread = threading.Thread(target=self.poll, daemon=True)
        self.thread.start()

    def poll(self):
        assert next(self.consumer) is None

    @property
    def sleeps(self):
        return self.thread.is_alive()


def asleep(valkey, consumer):
    """A consumer in its longest pause; the subscription itself ends a pause once."""
    rig.wait_for(lambda: dict(valkey.client.pubsub_numsub("rig:arrivals"))[b"rig:arrivals"], what="the subscription")
    waiters = []

    def sleeps():
        waiters.append(Waiter(consumer))
        return rig.holds_for(lambda: waiters[-1].sleeps, 0.3)

    rig.wait_for(sleeps, what="the pause")
    return waiters[-1]


def test_a_message_ends_the_pause_of_an_idle_consumer(broker, valkey):
    waiter = asleep(valkey, broker.consume("lane", prefetch=1, timeout=TIMEOUT))
    send(broker, 1)
    rig.wait_for(lambda: not waiter.sleeps, what="the end of the pause")
    assert next(waiter.consumer).args == (1,)


def test_messages_sent_together_end_the_pause_as_well(broker, valkey):
    waiter = asleep(valkey, broker.consume("lane", prefetch=2, timeout=TIMEOUT))
    message = Message(queue_name="lane", actor_name="work", args=(), kwargs={}, options={})
    broker.enqueue_many([message.copy(args=(1,)), message.copy(args=(2,))])
    rig.wait_for(lambda: not waiter.sleeps, what="the end of the pause")
    assert {next(waiter.consumer).args, next(waiter.consumer).args} == {(1,), (2,)}


def test_a_full_consumer_fetches_as_soon_as_one_of_its_messages_is_done(broker, valkey):
    consumer = broker.consume("lane", prefetch=1, timeout=TIMEOUT)
    send(broker, 1, 2)
    first = next(consumer)
    waiter = asleep(valkey, consumer)
    consumer.ack(first)
    rig.wait_for(lambda: not waiter.sleeps, what="the end of the pause")
    assert next(consumer).args == (2,)


def test_a_request_to_stop_ends_the_pause(broker, valkey):
    waiter = asleep(valkey, broker.consume("lane", prefetch=1, timeout=TIMEOUT))
    request_stop()
    rig.wait_for(lambda: not waiter.sleeps, what="the end of the pause")


def test_consumers_are_woken_again_after_redis_has_been_away(broker, valkey):
    request = asleep(valkey, broker.consume("lane", prefetch=1, timeout=TIMEOUT))
    valkey.kill()
    valkey.start()
    rig.wait_for(lambda: not request.sleeps, what="the new subscription")
    broker.client.connection_pool.disconnect(inuse_connections=False)  # of the server that is gone
    waiter = asleep(valkey, broker.consume("lane", prefetch=1, timeout=TIMEOUT))
    send(broker, 1)
    rig.wait_for(lambda: not waiter.sleeps, what="the end of the pause")
    assert next(waiter.consumer).args == (1,)


def test_without_the_right_to_subscribe_messages_are_found_by_polling(valkey, caplog):
    rights = ["+@all", "-subscribe", "-publish"]
    valkey.client.acl_setuser("polls", enabled=True, passwords=["+word"], keys=["*"], commands=rights)
    broker = rig.hardened(valkey.url, namespace="rig", username="polls", password="word")
    consumer = broker.consume("lane", prefetch=1, timeout=100)
    rig.wait_for(lambda: "forbids to subscribe" in caplog.text, what="the warning")
    assert next(consumer) is None
    send(broker, 1)
    rig.wait_for(lambda: (found := next(consumer)) and found.args == (1,), what="the message")
    broker.close()
