"""Reserved sends are spaced evenly over all workers; nothing earns a burst, and an edit of the rate acts at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.stores.redis.send_rate import RedisSendRates

AHEAD = 0.5
LONG = 3_600.0
"""A bound that no reservation of a test exceeds."""


@pytest.fixture
def rates(broker_redis: redis.Redis) -> RedisSendRates:
    """Rates of an installation that has sent before."""
    used = RedisSendRates(broker_redis)
    begins(used, 1, 1_000.0, 0.0)
    return used


def begins(rates: RedisSendRates, count: int, per_second: float, longest: float = LONG) -> float:
    """Reserve, and return when the reservation begins (monotonic s)."""
    asked = monotonic()
    answer = rates.take("email", count, per_second, longest)
    assert answer is not None
    assert answer[0]
    return asked + answer[1]


def test_reservations_follow_each_other_at_the_rate(rates: RedisSendRates) -> None:
    starts = [begins(rates, 2, 100.0) for _ in range(50)]
    assert starts[-1] - starts[0] == pytest.approx(49 * 0.02, abs=0.2)


def test_many_workers_together_keep_the_rate(rates: RedisSendRates) -> None:
    with ThreadPoolExecutor(8) as pool:
        starts = sorted(pool.map(lambda _: begins(rates, 1, 1_000.0), range(400)))
    assert starts[-1] - starts[0] >= 399 / 1_000.0 - 0.05


def test_a_reservation_that_would_begin_too_late_is_refused_and_reserves_nothing(rates: RedisSendRates) -> None:
    assert rates.take("email", 100, 10.0, AHEAD) is not None
    for _ in range(3):
        answer = rates.take("email", 1, 10.0, AHEAD)
        assert answer is not None
        assert not answer[0]
        assert 9.0 < answer[1] <= 10.5


def test_a_pause_earns_no_burst(rates: RedisSendRates) -> None:
    sleep(0.2)  # the pause is what this test is about
    starts = [begins(rates, 10, 100.0) for _ in range(5)]
    assert starts[-1] - starts[0] >= 0.4 - 0.05


def test_a_lost_key_starts_behind_all_lost_reservations(rates: RedisSendRates, broker_redis: redis.Redis) -> None:
    latest = max(begins(rates, 1, 100.0, AHEAD) for _ in range(20))
    broker_redis.flushdb()
    assert begins(rates, 1, 100.0, AHEAD) >= latest


def test_an_edit_of_the_rate_acts_at_once(rates: RedisSendRates) -> None:
    slow = rates.take("email", 1, 0.01, AHEAD)
    assert slow is not None
    assert not slow[0]
    assert slow[1] > 90
    assert begins(rates, 1, 100.0, AHEAD) - monotonic() <= 0.1, "not the 100 seconds of the rate before"


def test_rates_of_two_installations_on_one_redis_are_independent(broker_redis: redis.Redis) -> None:
    one, two = RedisSendRates(broker_redis, "one:"), RedisSendRates(broker_redis, "two:")
    begins(one, 100, 1.0, 0.0)
    assert begins(two, 1, 1.0, 0.0) <= monotonic()


def test_an_unreachable_redis_gives_no_answer() -> None:
    with redis.Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0)) as nowhere:
        assert RedisSendRates(nowhere).take("email", 1, 1.0, AHEAD) is None
