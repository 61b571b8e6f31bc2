"""A channel's rate holds over all workers, changes while running, and keeps to a part of it without Redis."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import monotonic

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.pipeline.delivery.send_rate import SendRateKeeper
from engine.policy.models import Rate
from engine.policy.policyset import PolicySet
from engine.stores.redis.send_rate import RedisSendRates
from tests.support.pipeline_world import POLICIES, World


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """Its turns are short, so a sender that waits for a slow rate soon gives its slice up."""
    return make_world(engine={"lease": "1s"})


def rates(world: World, **limits: object) -> None:
    """Set the rate of e-mail, or remove it, as an edit of `policies/lanes.yaml` does."""
    world.policies({**POLICIES, **({"rates": {"email": limits}} if limits else {})})


def launch_slowly(world: World) -> None:
    """Launch a campaign to 30 users at one mail a minute, and let its sender wait for the second."""
    rates(world, per_hour=60)
    world.users([f"u{number}" for number in range(30)])
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    for _ in range(4):
        world.step()


def test_a_campaign_keeps_the_rate_and_sends_every_mail_once(world: World) -> None:
    rates(world, per_second=50)
    world.users([f"u{number}" for number in range(60)])
    began = monotonic()
    world.start({"campaign": "hello", "kind": "one_off"})
    assert monotonic() - began >= 58 / 50
    assert len(world.sent()) == len({*world.sent()}) == 60


def test_a_faster_rate_acts_within_the_run(world: World) -> None:
    launch_slowly(world)
    assert len(world.sent()) <= 1
    rates(world)
    world.settle()
    assert len(world.sent()) == 30


def test_a_pause_acts_while_a_sender_waits_for_the_rate(world: World) -> None:
    launch_slowly(world)
    world.steer("pause", "hello")
    world.settle()
    assert len(world.sent()) <= 1
    rates(world)
    world.steer("resume", "hello")
    world.settle()
    assert len(world.sent()) == 30


def policies(world: World, per_second: float, processes: int) -> Callable[[], PolicySet]:
    lanes = world.app.policies
    fleets = {name: fleet.model_copy(update={"processes": processes}) for name, fleet in lanes.fleets.items()}
    rate = Rate.model_validate({"per_second": per_second})
    return lambda: replace(lanes, fleets=fleets, rates={"email": rate})


def test_without_redis_each_process_keeps_its_part_of_the_rate(world: World) -> None:
    with redis.Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0)) as nowhere:
        keeper = SendRateKeeper(RedisSendRates(nowhere), policies(world, 400.0, 4), world.app.clock)
        with ThreadPoolExecutor(3) as pool:
            began = monotonic()
            assert all(pool.map(lambda _: keeper.permit("email", 2, "deliver", lambda: True), range(30)))
    assert monotonic() - began >= 58 / 100


def test_a_sender_that_need_not_wait_gives_up(world: World) -> None:
    keeper = SendRateKeeper(world.app.stores.send_rates, policies(world, 0.01, 1), world.app.clock)
    assert keeper.at_once("email") == 1
    asked: list[int] = []

    def twice() -> bool:
        asked.append(1)
        return len(asked) < 3

    assert not keeper.permit("email", 5, "deliver", twice)


def test_without_a_rate_nobody_waits(world: World) -> None:
    keeper = SendRateKeeper(world.app.stores.send_rates, lambda: world.app.policies, world.app.clock)
    assert keeper.limit("email") is None
    assert keeper.at_once("email") is None
    assert keeper.permit("email", 1_000_000, "deliver", lambda: False)
