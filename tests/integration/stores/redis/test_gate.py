"""All processes see one gate: one controls it, those that die leave it, and a lost Redis loses no process."""

from __future__ import annotations

import threading

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.domain.gate import GateState, Gauge, Hold, Member, Override
from engine.stores.redis.gate import RedisGate

CLOCK = Member("a", "clock", 0, 0.0)
SLOW = Member("b", "slow", 2, 0.75)


@pytest.fixture
def gate(broker_redis: redis.Redis) -> RedisGate:
    return RedisGate(broker_redis, "mongodb")


def test_a_new_gate_has_no_decision_yet(gate: RedisGate) -> None:
    view = gate.view()
    assert view is not None
    assert (view.state, view.override, view.gauge, view.members) == (None, None, Gauge(), ())


def test_one_process_controls_and_all_see_its_decision(gate: RedisGate) -> None:
    first = gate.beat(CLOCK, may_control=True)
    second = gate.beat(Member("c", "clock", 0, 0.0), may_control=True)
    worker = gate.beat(SLOW, may_control=False)
    assert first is not None
    assert second is not None
    assert worker is not None
    assert (first.controls, second.controls, worker.controls) == (True, False, False)
    state, gauge = GateState(0.5, first.now, "slow"), Gauge(0.001, 0.02, None, 3, 0.0005)
    assert gate.decide("a", state, gauge)
    assert not gate.decide("c", GateState(9.0), Gauge())
    seen = gate.beat(SLOW, may_control=False)
    assert seen is not None
    assert (seen.state, seen.gauge) == (state, gauge)
    assert SLOW in seen.members


def test_the_control_passes_on_when_its_process_ends(gate: RedisGate) -> None:
    gate.beat(CLOCK, may_control=True)
    gate.gone("a")
    view = gate.beat(Member("c", "clock", 0, 0.0), may_control=True)
    assert view is not None
    assert view.controls
    assert [member.id for member in view.members] == ["c"]


def test_the_control_passes_on_when_its_process_is_silent(gate: RedisGate, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    monkeypatch.setattr("engine.stores.redis.gate.CONTROLLER_LIFE", timedelta(milliseconds=50))
    monkeypatch.setattr("engine.stores.redis.gate.MEMBER_LIFE", timedelta(milliseconds=50))
    gate.beat(CLOCK, may_control=True)
    threading.Event().wait(0.2)
    view = gate.beat(Member("c", "clock", 0, 0.0), may_control=True)
    assert view is not None
    assert view.controls
    assert [member.id for member in view.members] == ["c"]


def test_a_persons_setting_is_seen_until_it_ends(gate: RedisGate) -> None:
    before = gate.view()
    assert before is not None
    held = Override(Hold.LIMIT, before.now + 60_000, "backup", 0.25)
    assert gate.override(held)
    view = gate.view()
    assert view is not None
    assert view.override == held
    assert gate.override(Override(Hold.CLOSED, before.now - 1, ""))
    over = gate.view()
    assert over is not None
    assert over.override is None
    assert gate.override(held)
    assert gate.override(None)
    ended = gate.view()
    assert ended is not None
    assert ended.override is None


def test_a_redis_that_is_away_raises_nothing() -> None:
    nobody = redis.Redis(port=1, socket_connect_timeout=0.1, retry=Retry(NoBackoff(), 0))
    gate = RedisGate(nobody, "mongodb")
    assert gate.beat(CLOCK, may_control=True) is None
    assert gate.view() is None
    assert not gate.decide("a", GateState(), Gauge())
    assert not gate.override(None)
    gate.gone("a")
