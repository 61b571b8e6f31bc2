"""A running worker follows edited policies: lanes, threads, messages in hand, pauses and time limits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import dramatiq
import pytest

from actors.broker.broker import HardenedBroker
from actors.broker.queue_admin import depths, removed, sweep
from actors.fleet import follow_policies, hand_over, lanes_given_up, run_fleet_in_process, stop_fleets
from actors.middleware import TimeLimitBackstop, Watchdog, clear_stop, default_middleware, time_left
from actors.worker_threads import fetched

rig = SimpleNamespace(**run_path(str(Path(__file__).parents[3] / "stock" / "rig.py")))
valkey = rig.valkey
Fleet = rig.Fleet


@contextmanager
def fleets(broker: HardenedBroker, **named: object) -> Iterator[list[dramatiq.Worker]]:
    """Run named fleets as threads of this process."""
    workers = [run_fleet_in_process(broker, fleet, name) for name, fleet in named.items()]
    try:
        yield workers
    finally:
        stop_fleets(broker, workers, timeout=timedelta(seconds=3))
        broker.close()
        clear_stop()


class Gate:
    """An actor whose messages begin and then wait for the gate to open."""

    def __init__(self, broker: HardenedBroker, lane: str = "lane") -> None:
        self.begun: list[str] = []
        self.done: list[str] = []
        self.open = threading.Event()
        self.actor = dramatiq.actor(
            self.run, broker=broker, actor_name="passes", queue_name=lane, max_retries=0, time_limit=60_000
        )

    def run(self, number: object) -> None:
        self.begun.append(threading.current_thread().name)
        self.open.wait(20)
        self.done.append(str(number))

    def send(self, count: int, lane: str = "lane") -> None:
        for number in range(count):
            self.actor.broker.enqueue(self.actor.message(number).copy(queue_name=lane))


def ready(broker: HardenedBroker) -> dict[str, int]:
    return {depth.queue: depth.ready for depth in depths(broker)}


def test_more_threads_begin_waiting_messages_at_once(valkey):
    broker = rig.hardened(valkey.url)
    gate = Gate(broker)
    with fleets(broker, one=Fleet(threads=1)):
        gate.send(4)
        rig.wait_for(lambda: len(gate.begun) == 1, what="the first")
        assert rig.holds_for(lambda: len(gate.begun) == 1, 0.3), "one thread"
        follow_policies(broker, ["lane"], {"one": Fleet(threads=3)})
        rig.wait_for(lambda: len(gate.begun) == 3, what="the next two")
        gate.open.set()
        rig.wait_for(lambda: len(gate.done) == 4, what="the end")


def test_fewer_threads_end_after_their_messages_and_the_watchdog_misses_none(valkey):
    reasons = []
    watchdog = Watchdog(on_failure=lambda reason, workers: reasons.append(reason), interval=0.05)
    broker = rig.hardened(valkey.url, middleware=default_middleware(watchdog=watchdog))
    gate = Gate(broker)
    with fleets(broker, one=Fleet(threads=3)) as (worker,):
        gate.send(3)
        rig.wait_for(lambda: len(gate.begun) == 3, what="all")
        follow_policies(broker, ["lane"], {"one": Fleet(threads=1)})
        gate.open.set()
        rig.wait_for(lambda: len(gate.done) == 3, what="the messages in hand")
        rig.wait_for(lambda: sum(thread.is_alive() for thread in worker.workers) == 1, what="two ended threads")
        assert rig.holds_for(lambda: not reasons, 0.3)
        gate.send(6)
        rig.wait_for(lambda: len(gate.done) == 9, what="the rest")
        assert len(set(gate.begun[3:])) == 1, "by one thread"
        follow_policies(broker, ["lane"], {"one": Fleet(threads=2)})
        assert len([thread for thread in worker.workers if thread.is_alive()]) == 2
        assert rig.holds_for(lambda: not reasons, 0.3)


def test_messages_in_hand_and_the_pause_follow_an_edit(valkey):
    broker = rig.hardened(valkey.url)
    gate = Gate(broker)
    with fleets(broker, one=Fleet(threads=1, prefetch=1)) as (worker,):
        gate.send(6)
        rig.wait_for(lambda: ready(broker)["lane"] == 5, what="one in hand")
        edited = Fleet(threads=1, prefetch=4, worker_timeout=timedelta(milliseconds=700))
        follow_policies(broker, ["lane"], {"one": edited})
        rig.wait_for(lambda: ready(broker)["lane"] == 2, what="four in hand")
        assert worker.consumers["lane"].consumer.timeout == 700
        assert worker.workers[0].timeout == 0.7
        gate.open.set()
        rig.wait_for(lambda: len(gate.done) == 6, what="the end")


def test_a_lane_is_left_only_to_a_living_fleet_and_taken_up_again(valkey):
    """An edit that gives a lane to a fleet without a process stops nothing."""
    broker = rig.hardened(valkey.url, "fast", "slow")
    gate = Gate(broker, "fast")
    gate.open.set()
    lanes = ["fast", "slow"]
    edited = {"one": Fleet(lanes=("fast",)), "two": Fleet(lanes=("slow",))}
    with fleets(broker, one=Fleet(lanes=("fast", "slow"))) as (worker,):
        follow_policies(broker, lanes, edited)
        assert lanes_given_up(broker, edited) == {"slow"}
        assert hand_over(broker, lanes, edited, {"one"}) == []
        gate.send(1, "slow")
        rig.wait_for(lambda: len(gate.done) == 1, what="a message of the lane that nobody else serves")
        assert hand_over(broker, lanes, edited, {"one", "two"}) == ["slow"]
        assert (fetched(worker), lanes_given_up(broker, edited)) == ({"fast"}, set())
        gate.send(1, "slow")
        if not rig.holds_for(lambda: ready(broker)["slow"] == 1, 0.5):  # a fetch that had begun before took it
            gate.send(1, "slow")
            assert rig.holds_for(lambda: ready(broker)["slow"] == 1, 0.5), "it waits for the other fleet"
        before = len(gate.done)
        follow_policies(broker, lanes, {"one": Fleet(lanes=("fast", "slow"))})
        rig.wait_for(lambda: len(gate.done) == before + 1, what="the lane taken up again")


def test_two_lanes_swapped_between_two_fleets_end_with_one_fleet_each(valkey):
    broker = rig.hardened(valkey.url, "fast", "slow")
    gate = Gate(broker, "fast")
    gate.open.set()
    swapped = {"one": Fleet(lanes=("slow",)), "two": Fleet(lanes=("fast",))}
    with fleets(broker, one=Fleet(lanes=("fast",)), two=Fleet(lanes=("slow",))) as (one, two):
        follow_policies(broker, ["fast", "slow"], swapped)
        rig.wait_for(lambda: one.consumers["fast"].consumer and two.consumers["slow"].consumer, what="the consumers")
        assert sorted(hand_over(broker, ["fast", "slow"], swapped, {"one", "two"})) == ["fast", "slow"]
        assert (fetched(one), fetched(two)) == ({"slow"}, {"fast"})
        gate.send(1, "slow")  # a fetch that had begun before may take it
        rig.wait_for(lambda: len(gate.done) == 1, what="the first message")
        gate.begun.clear()
        gate.send(3, "slow")
        rig.wait_for(lambda: len(gate.done) == 4, what="the slow lane")
        assert set(gate.begun) <= {thread.name for thread in one.workers}


def test_a_fleet_that_is_gone_serves_on_until_another_lives(valkey):
    broker = rig.hardened(valkey.url)
    gate = Gate(broker)
    gate.open.set()
    edited = {"new": Fleet()}
    with fleets(broker, old=Fleet()) as (worker,):
        follow_policies(broker, ["lane"], edited)
        assert hand_over(broker, ["lane"], edited, {"old"}) == []
        gate.send(1)
        rig.wait_for(lambda: len(gate.done) == 1, what="a message")
        assert hand_over(broker, ["lane"], edited, {"new"}) == ["lane"]
        assert fetched(worker) == set()


def test_a_lane_that_is_gone_is_served_until_the_process_ends(valkey):
    """Its messages move to their new lanes when they are picked up."""
    broker = rig.hardened(valkey.url, "old", "lane")
    gate = Gate(broker)
    gate.open.set()
    edited = {"one": Fleet()}
    with fleets(broker, one=Fleet(lanes=("old", "lane"))):
        follow_policies(broker, ["lane"], edited)
        assert hand_over(broker, ["lane"], edited, {"one"}) == []
        gate.send(1, "old")
        rig.wait_for(lambda: len(gate.done) == 1, what="a message of the removed lane")


def test_an_edited_time_limit_reaches_queued_messages(valkey):
    """The message states its lane's limit of the time when it was enqueued; the one in force holds."""
    limits = {"lane": 90_000}
    backstop = TimeLimitBackstop(in_force=lambda message: limits.get(message.queue_name))
    broker = rig.hardened(valkey.url, middleware=default_middleware(time_limit=backstop))
    left = []
    asks = dramatiq.actor(
        lambda: left.append(time_left()),
        broker=broker,
        actor_name="asks",
        queue_name="lane",
        max_retries=0,
        time_limit=1_000,
    )
    asks.send_with_options(time_limit=50_000)
    asks.send_with_options(time_limit=50_000)
    with fleets(broker, one=Fleet(threads=1)):
        rig.wait_for(lambda: len(left) == 2, what="both runs")
    assert [80 < seconds <= 90 for seconds in left] == [True, True]


# -- the queue of a removed lane ---------------------------------------------------------------------------------


def _dead_process(valkey, broker: HardenedBroker, queue: str, message_id: str) -> None:
    """Let the queue's first message be held by a process that is long dead."""
    valkey.client.lrem(f"tidegate:{queue}", 0, message_id)
    valkey.client.sadd(f"tidegate:__acks__.dead.{queue}", message_id)
    valkey.client.zadd("tidegate:__heartbeats__", {"dead": 1_000})


@pytest.fixture
def after_restart(valkey) -> tuple[HardenedBroker, Gate]:
    """Return a broker that no longer knows the lane `old`, in whose queue two messages wait and a dead process has one.

    One more is delayed, and one is a dead letter.
    """
    before = rig.hardened(valkey.url, "old", "new")
    sent = Gate(before, "new")
    sent.send(3, "old")
    _dead_process(valkey, before, "old", valkey.client.lrange("tidegate:old", 0, -1)[0].decode())
    before.enqueue(sent.actor.message("late").copy(queue_name="old"), delay=500_000)
    valkey.client.zadd("tidegate:old.XQ", {"letter": 1})
    valkey.client.hset("tidegate:old.XQ.msgs", "letter", sent.actor.message("dead").encode())
    before.close()
    broker = rig.hardened(valkey.url, "new")
    gate = Gate(broker, "new")
    gate.open.set()
    return broker, gate


def test_messages_of_a_removed_lane_are_found_moved_and_run_once(valkey, after_restart: tuple[HardenedBroker, Gate]):
    broker, gate = after_restart
    assert removed(broker, ["new"]) == ["old"]
    assert [(d.ready, d.delayed, d.taken, d.dead) for d in depths(broker, ["old"])] == [(2, 1, 1, 1)]
    assert sweep(broker, "old", lambda message: "new") == (4, 1)
    assert removed(broker, ["new"]) == []
    assert valkey.client.keys("*old*") == [], "nothing is left of it"
    with fleets(broker, one=Fleet(lanes=("new",))):
        rig.wait_for(lambda: len(gate.done) == 4, what="all messages")
        assert rig.holds_for(lambda: len(gate.done) == 4, 0.3)
    assert sorted(gate.done) == ["0", "1", "2", "late"]


def test_a_message_of_a_removed_lane_whose_slice_is_closed_is_deleted(after_restart: tuple[HardenedBroker, Gate]):
    broker, _ = after_restart
    assert sweep(broker, "old", lambda message: None)[0] == 4
    assert ready(broker) == {"new": 0}
    broker.close()


def test_a_living_process_keeps_what_it_has_taken_from_a_removed_lane(valkey):
    broker = rig.hardened(valkey.url, "old", "new")
    gate = Gate(broker, "old")
    with fleets(broker, one=Fleet(lanes=("old",), threads=1, prefetch=2)):
        gate.send(5, "old")
        rig.wait_for(lambda: ready(broker)["old"] == 3, what="two in hand")
        assert sweep(broker, "old", lambda message: "new") == (3, 0)
        assert ready(broker) == {"old": 0, "new": 3}
        gate.open.set()
        rig.wait_for(lambda: len(gate.done) == 2, what="those in hand")
        rig.wait_for(lambda: removed(broker, ["new"]) == [], what="an empty queue")
