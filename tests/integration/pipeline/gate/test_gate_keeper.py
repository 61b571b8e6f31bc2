"""The gate on real stores: a slow MongoDB limits bulk work in every process, a person overrides it, Redis may go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from engine.domain.gate import GateState, GateView, Gauge, Hold, Member, Override
from engine.pipeline.gate.bulk_gate import BulkGate
from engine.pipeline.gate.gate_keeper import GateKeeper
from engine.policy.models import Gate
from engine.stores.mongo.store_probe import MongoProbe
from engine.stores.redis.gate import RedisGate
from engine.telemetry.events import Occurrence, subscribe
from tests.support.pipeline_world import World

PATIENCE = 60.0
RULE = Gate(latency=timedelta(milliseconds=250))


class LateProbe:
    """MongoDB's probe, `late` seconds later than the store answers: a slow store, as far as the gate can see."""

    def __init__(self, probe: MongoProbe) -> None:
        self._probe = probe
        self.late = 0.0

    def read(self) -> None:
        threading.Event().wait(self.late)
        self._probe.read()

    def write(self) -> None:
        threading.Event().wait(self.late)
        self._probe.write()

    def health(self) -> tuple[float | None, int | None]:
        return self._probe.health()


class Process:
    """A process's gate and keeper, with threads that work in bulk until they are stopped."""

    def __init__(self, world: World, name: str, store: RedisGate, *, control: bool) -> None:
        self.probe = LateProbe(MongoProbe(world.app.stores.database))
        self.gate = BulkGate(world.app.system)
        self.rule: Gate | None = RULE
        self.keeper = GateKeeper(
            store, self.probe, self.gate, lambda: self.rule, world.app.system, world.app.stores.OUTAGES
        )
        self._ended = threading.Event()
        self._threads = [] if control else [threading.Thread(target=self._work) for _ in range(2)]
        for thread in self._threads:
            thread.start()
        self.keeper.start(name, may_control=control)

    def _work(self) -> None:
        while not self._ended.wait(0.001):
            self.gate.enter()
            self._ended.wait(0.005)  # a call
            self.gate.leave(0.005)

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self.keeper.stop()


@pytest.fixture
def store(world: World) -> RedisGate:
    return world.app.gate_store


@pytest.fixture
def clock(world: World, store: RedisGate) -> Iterator[Process]:
    process = Process(world, "clock", store, control=True)
    yield process
    process.close()


@pytest.fixture
def workers(world: World, store: RedisGate) -> Iterator[list[Process]]:
    processes = [Process(world, name, store, control=False) for name in ("slow", "deliver")]
    yield processes
    for process in processes:
        process.close()


@pytest.fixture
def changes() -> Iterator[list[Occurrence]]:
    seen: list[Occurrence] = []
    end = subscribe(lambda event: seen.append(event) if event.name.startswith("gate.") else None)
    yield seen
    end()


def seen(store: RedisGate, wanted: Callable[[GateView], bool]) -> GateView:
    """Wait until the gate is as wanted."""
    deadline = time.monotonic() + PATIENCE
    while True:
        view = store.view()
        if view is not None and wanted(view):
            return view
        assert time.monotonic() < deadline, view
        threading.Event().wait(0.05)


def until(fact: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def limited(view: GateView) -> bool:
    return view.state is not None and view.state.limit is not None


def test_a_slow_store_limits_every_process_and_a_quick_one_opens_again(
    store: RedisGate, clock: Process, workers: list[Process], changes: list[Occurrence]
) -> None:
    seen(store, lambda view: view.gauge.p95 is not None and sum(member.wanted for member in view.members) >= 2)
    assert not any(process.gate.limited for process in workers)
    clock.probe.late = 0.4
    view = seen(store, limited)
    assert view.state is not None
    assert "p95" in view.state.why
    until(lambda: all(process.gate.limited for process in workers))
    low = view.state.limit
    assert low is not None
    clock.probe.late = 0.0
    seen(store, lambda view: view.state is not None and view.state.why.startswith("the store") and limited(view))
    reasons = [str(event.fields["reason"]) for event in changes]
    assert any("p95" in reason for reason in reasons)
    assert any("quick" in reason for reason in reasons)


def test_a_person_closes_and_opens_the_gate_for_a_while(
    store: RedisGate, clock: Process, workers: list[Process], changes: list[Occurrence]
) -> None:
    now = seen(store, lambda view: len(view.members) == 3).now

    def told() -> list[str]:
        return [str(event.fields["reason"]) for event in changes if event.name == "gate.held"]

    assert store.override(Override(Hold.CLOSED, now + 600_000, "backup"))
    until(lambda: all(process.gate.closed for process in workers) and len(told()) == 1)
    assert store.override(Override(Hold.OPEN, now + 600_000, ""))
    until(lambda: not any(process.gate.limited for process in workers) and len(told()) == 2)
    assert store.override(None)
    until(lambda: len(told()) == 3)
    assert told() == [
        "closed, set by a person: backup",
        "open, set by a person",
        "the automatic limit is in force again",
    ]


def test_without_redis_each_process_keeps_its_share(
    store: RedisGate, workers: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.beat(Member("x", "clock", 0, 0.0), may_control=True) is not None
    assert store.decide("x", GateState(0.5, 1, "slow"), Gauge())
    until(lambda: all(process.gate.limited for process in workers))
    monkeypatch.setattr(store, "beat", lambda *_, **__: None)
    threading.Event().wait(1.5)
    assert all(process.gate.limited for process in workers)


def test_a_redis_that_lost_the_gate_gets_the_limit_back(
    world: World, store: RedisGate, clock: Process, workers: list[Process]
) -> None:
    seen(store, lambda view: len(view.members) == 3)
    clock.probe.late = 0.4
    seen(store, limited)
    world.app.stores.broker_client.delete(f"{world.database.name}:tidegate:gate:mongodb")
    assert limited(seen(store, limited))


def test_a_policy_without_a_gate_limits_nothing(store: RedisGate, clock: Process, workers: list[Process]) -> None:
    for process in (clock, *workers):
        process.rule = None
    clock.probe.late = 0.4
    seen(store, lambda view: len(view.members) == 3)
    threading.Event().wait(3.0)
    assert not any(process.gate.limited for process in workers)


def test_a_closed_gate_releases_slices_and_an_open_one_finishes_them(world: World) -> None:
    world.users([f"u{number}" for number in range(40)])
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    world.app.bulk_gate.set_share(0.0, 0.01)
    world.step()
    world.step()
    assert not world.mails()
    assert world.database["slices"].count_documents({"state": "open"}) > 0
    world.app.bulk_gate.set_share(None, 0.01)
    world.database["slices"].update_many({}, {"$unset": {"not_before": ""}})
    world.settle()
    assert len(world.mails()) == 40
    world.check()
