"""The clock's wake-up ends a wait; a lost one costs a tick, and an unreachable Redis nothing more."""

from __future__ import annotations

from datetime import timedelta
from threading import Thread
from time import monotonic

import redis

from engine.stores.redis.clock_wakeup import KEY, RedisWakeup

SOON = timedelta(milliseconds=50)
LONG = timedelta(seconds=5)


def test_a_wait_without_a_wake_up_times_out(broker_redis: redis.Redis) -> None:
    assert not RedisWakeup(broker_redis).wait(SOON)


def test_a_wake_up_before_the_wait_ends_it(broker_redis: redis.Redis) -> None:
    RedisWakeup(broker_redis).ring()
    assert RedisWakeup(broker_redis).wait(LONG)


def test_a_wake_up_ends_a_running_wait(broker_redis: redis.Redis, broker_url: str) -> None:
    wakeup, heard = RedisWakeup(broker_redis), []
    waiting = Thread(target=lambda: heard.append(wakeup.wait(LONG)))
    waiting.start()
    with redis.Redis.from_url(broker_url) as other:
        RedisWakeup(other).ring()
    waiting.join(timeout=30)
    assert heard == [True]


def test_many_wake_ups_wake_only_a_few_times(broker_redis: redis.Redis) -> None:
    wakeup = RedisWakeup(broker_redis)
    for _ in range(100):
        wakeup.ring()
    assert broker_redis.llen(KEY) <= 2


def test_an_unread_wake_up_expires(broker_redis: redis.Redis) -> None:
    RedisWakeup(broker_redis).ring()
    assert 0 < int(broker_redis.ttl(KEY)) <= 60


def test_wake_ups_of_two_installations_on_one_redis_are_independent(broker_redis: redis.Redis) -> None:
    RedisWakeup(broker_redis, "one:").ring()
    assert not RedisWakeup(broker_redis, "two:").wait(SOON)
    assert RedisWakeup(broker_redis, "one:").wait(LONG)


def test_an_unreachable_redis_neither_stops_nor_spins_the_clock() -> None:
    with redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=1) as nowhere:
        RedisWakeup(nowhere).ring()
        began = monotonic()
        assert not RedisWakeup(nowhere).wait(SOON)
        assert monotonic() - began >= SOON.total_seconds()
