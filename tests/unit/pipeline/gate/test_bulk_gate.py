"""A process's bulk work takes its share of the store, call by call, and never waits for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from engine.clock import SystemClock
from engine.pipeline.gate.bulk_gate import LONGEST_WAIT, BulkGate
from engine.query_metrics import measured, named_queries, working_on

CALL = 0.01
"""Seconds that each call of these tests takes."""


def calls(gate: BulkGate, seconds: float, threads: int = 1) -> int:
    """Let threads make calls for so many seconds; return how many they made."""
    until = time.monotonic() + seconds
    counts = [0] * threads

    def work(number: int) -> None:
        while time.monotonic() < until:
            gate.enter()
            time.sleep(CALL)  # the call itself
            gate.leave(CALL)
            counts[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts)


@pytest.fixture
def gate() -> BulkGate:
    return BulkGate(SystemClock())


def test_without_a_limit_every_call_begins_at_once(gate: BulkGate) -> None:
    assert calls(gate, 0.5, threads=4) > 80
    assert not gate.limited


@pytest.mark.parametrize(("share", "threads"), [(0.25, 1), (0.25, 4), (1.0, 4), (2.0, 8)])
def test_calls_take_their_share_whatever_the_number_of_threads(gate: BulkGate, share: float, threads: int) -> None:
    gate.set_share(share, CALL)
    used = calls(gate, 1.5, threads) * CALL / 1.5
    assert used <= share * 1.15 + threads * CALL
    assert used >= share * 0.5


def test_no_more_calls_run_at_once_than_the_share_allows(gate: BulkGate) -> None:
    gate.set_share(2.0, CALL)
    inside, most, lock = 0, 0, threading.Lock()
    until = time.monotonic() + 0.4

    def work() -> None:
        nonlocal inside, most
        while time.monotonic() < until:
            gate.enter()
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(CALL)  # the call itself
            with lock:
                inside -= 1
            gate.leave(CALL)

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most == 2


def test_a_call_never_waits_longer_than_the_longest_wait(gate: BulkGate) -> None:
    gate.set_share(0.0, CALL)
    began = time.monotonic()
    gate.enter()
    assert time.monotonic() - began == pytest.approx(LONGEST_WAIT, abs=0.4)
    assert gate.closed


def test_an_opened_gate_lets_those_who_wait_go_on_at_once(gate: BulkGate) -> None:
    gate.set_share(0.0, CALL)
    took: list[float] = []

    def wait() -> None:
        began = time.monotonic()
        gate.enter()
        took.append(time.monotonic() - began)

    waiting = threading.Thread(target=wait)
    waiting.start()
    threading.Event().wait(0.1)
    gate.set_share(None, CALL)
    waiting.join()
    assert took[0] < LONGEST_WAIT / 2


def test_the_gate_tells_what_was_wanted_and_used(gate: BulkGate) -> None:
    calls(gate, 0.2, threads=3)
    wanted, used = gate.taken()
    assert wanted == 3
    assert used == pytest.approx(0.2 * 3, rel=0.5)
    assert gate.taken() == (0, 0.0)


def test_sizes_are_small_only_under_a_limit(gate: BulkGate) -> None:
    assert gate.size(5_000, 0.0001) == 5_000
    gate.set_share(0.5, 0.01)
    assert gate.size(5_000, 0.0001) == 100


class Passes:
    """Counts the calls that pass."""

    def __init__(self) -> None:
        self.entered = self.left = 0

    def enter(self) -> None:
        self.entered += 1

    def leave(self, seconds: float) -> None:
        assert seconds >= 0
        self.left += 1


def store(prefix: str) -> Callable[[], None]:
    @named_queries(prefix)
    class Store:
        def read(self) -> None:
            """Read."""

    return Store().read


@pytest.mark.parametrize(
    ("prefix", "gated"), [("users", True), ("enrolments", True), ("deliveries", True), ("slices", False), ("looks", 0)]
)
def test_bulk_work_passes_the_gate_only_where_it_reads_and_writes_users(prefix: str, gated: bool) -> None:
    passes, read = Passes(), store(prefix)
    read()
    with working_on("c", "campaign", passes):
        read()
    read()
    assert (passes.entered, passes.left) == (int(gated), int(gated))


def test_a_measured_part_passes_the_gate_too_and_leaves_it_when_it_raises() -> None:
    passes = Passes()
    with working_on("c", "campaign", passes), pytest.raises(ValueError, match="events"), measured("events.fetch"):
        raise ValueError("events")
    assert (passes.entered, passes.left) == (1, 1)


def test_work_on_single_users_passes_no_gate() -> None:
    passes, read = Passes(), store("users")
    with working_on("c", "campaign"):
        read()
    assert passes.entered == 0
