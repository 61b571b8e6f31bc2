"""Fleets as commands and as threads of one process (docs/broker.md, rows 8, 15 and 16)."""

from __future__ import annotations

import re
import socket
import threading
from datetime import timedelta
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import dramatiq
import pytest
from dramatiq.cli import make_argument_parser
from dramatiq.middleware import TimeLimitExceeded, raise_thread_exception

from actors.broker.queue_admin import depths
from actors.fleet import check_command_line, command_line, environment, stop_fleets
from actors.middleware import TimeLimitBackstop, Watchdog, default_middleware, time_left
from engine.errors import WrongCall

rig = SimpleNamespace(**run_path(str(Path(__file__).parents[3] / "stock" / "rig.py")))
valkey = rig.valkey


def spins(pause):
    """Run an actor that only computes; a cooperative deadline would have ended it."""
    while True:
        pause.wait(0.01)


def test_the_time_limit_interrupts_an_actor_in_one_process(valkey):
    """Rows 8 and 16: stock's timer starts only with the command line."""
    backstop = TimeLimitBackstop(interval=0.05)
    broker = rig.hardened(valkey.url, middleware=default_middleware(time_limit=backstop))
    ends, left = [], []

    @dramatiq.actor(broker=broker, queue_name="lane", max_retries=0, time_limit=100)
    def too_long():
        left.append(time_left())
        try:
            spins(threading.Event())
        except TimeLimitExceeded:
            ends.append(time_left())
            raise

    with rig.running(broker) as (worker,):
        too_long.send()
        rig.wait_for(lambda: depths(broker)[0].dead == 1, what="the dead letter")
        assert all(thread.is_alive() for thread in worker.workers)
    assert 0 < left[0] <= 0.1
    assert ends[0] <= -0.1, "the backstop comes at 2.5 times the limit"
    assert time_left() is None


def test_a_message_may_state_its_own_time_limit(valkey):
    """A slice's message carries the time limit of its lane."""
    broker = rig.hardened(valkey.url)
    left = []

    @dramatiq.actor(broker=broker, queue_name="lane", max_retries=0, time_limit=1_000)
    def asks():
        left.append(time_left())

    with rig.running(broker):
        asks.send_with_options(time_limit=90_000)
        rig.wait_for(lambda: left, what="the run")
    assert 80 < left[0] <= 90


def test_the_watchdog_reports_a_thread_that_no_interrupt_can_reach(valkey):
    """Row 8: an asynchronous exception cannot interrupt a socket call."""
    reasons = []
    watchdog = Watchdog(on_failure=lambda reason, workers: reasons.append(reason), interval=0.05, grace=0.2)
    backstop = TimeLimitBackstop(interval=0.05)
    broker = rig.hardened(valkey.url, middleware=default_middleware(watchdog=watchdog, time_limit=backstop))
    silent, ours = socket.socketpair()

    @dramatiq.actor(broker=broker, queue_name="lane", max_retries=0, time_limit=50)
    def hangs():
        ours.recv(1)

    with rig.running(broker):
        hangs.send()
        rig.wait_for(lambda: reasons == ["hangs did not end when interrupted"], what="the report")
        silent.close()
    ours.close()


def test_a_driver_timeout_ends_a_call_that_the_time_limit_cannot(valkey):
    """Row 8: each driver has a timeout."""
    broker = rig.hardened(valkey.url)
    silent, ours = socket.socketpair()
    ours.settimeout(0.1)

    @dramatiq.actor(broker=broker, queue_name="lane", max_retries=0, time_limit=10_000)
    def waits():
        ours.recv(1)

    with rig.running(broker):
        waits.send()
        rig.wait_for(lambda: depths(broker)[0].dead == 1, what="the failure")
    silent.close()
    ours.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_watchdog_reports_a_dead_worker_thread(valkey):
    """Row 8: a late exception ends a thread that waits for work."""
    reasons = []
    watchdog = Watchdog(on_failure=lambda reason, workers: reasons.append(reason), interval=0.05)
    broker = rig.hardened(valkey.url, middleware=default_middleware(watchdog=watchdog))
    with rig.running(broker) as (worker,):
        raise_thread_exception(worker.workers[0].ident, TimeLimitExceeded)
        rig.wait_for(lambda: reasons == ["1 of 2 worker threads are dead"], what="the report")


def test_fleets_in_one_process_serve_their_own_lanes_without_a_warning(valkey, caplog):
    """Row 16: a blocked slow lane does not hold the fast one up, and one fleet stops alone."""
    broker = rig.hardened(valkey.url, "fast", "slow")
    release, blocked = threading.Event(), threading.Event()
    ran = []

    @dramatiq.actor(broker=broker, queue_name="slow", max_retries=0, time_limit=60_000)
    def blocks():
        blocked.set()
        release.wait(20)

    @dramatiq.actor(broker=broker, queue_name="fast", max_retries=0, time_limit=60_000)
    def quick(number):
        ran.append((number, threading.current_thread()))

    fleets = (rig.Fleet(lanes=("fast",), threads=2), rig.Fleet(lanes=("slow",), threads=1))
    with rig.running(broker, *fleets) as (fast, slow):
        assert not [record for record in caplog.records if "same type twice" in record.message]
        for _ in range(3):
            blocks.send()
        assert blocked.wait(10)
        broker.enqueue_many(quick.message(number) for number in range(50))
        rig.wait_for(lambda: len(ran) == 50, what="the fast lane")
        assert {thread for _, thread in ran} <= set(fast.workers)
        assert len(slow.workers) == 1
        release.set()
        stop_fleets(broker, [slow])
        slow.workers.clear()
        broker.declare_queue("new")  # must not start consumers for the stopped one
        assert "new" not in slow.consumers
        quick.send(50)
        rig.wait_for(lambda: len(ran) == 51, what="the fleet that lives on")


def test_a_fleet_becomes_a_command_with_every_option():
    """Row 15: module first, its own lanes, processes and threads."""
    fleet = rig.Fleet(lanes=("fast", "looks"), processes=3, threads=5, prefetch=5)
    line = command_line(fleet)
    check_command_line(line)
    parsed = make_argument_parser().parse_args(line[1:])
    assert (parsed.broker, parsed.queues, parsed.processes, parsed.threads) == (
        "actors.dramatiq_entry",
        ["fast", "looks"],
        3,
        5,
    )
    assert environment(fleet)["dramatiq_worker_timeout"] == "100"
    assert environment(fleet)["dramatiq_queue_prefetch"] == "5"
    assert "dramatiq_delay_queue_prefetch" not in environment(fleet), "row 7"
    assert environment(rig.Fleet(worker_timeout=timedelta(seconds=1)))["dramatiq_worker_timeout"] == "1000"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("dramatiq actors.dramatiq_entry -p 1 -t 2 -Q", "names no queue"),
        ("dramatiq actors.dramatiq_entry -p 1 -t 2", "names no queue"),
        ("dramatiq -p 1 -t 2 -Q slow actors.dramatiq_entry", "required: broker"),
        ("dramatiq actors.dramatiq_entry -t 2 -Q slow", "does not say --processes"),
        ("dramatiq actors.dramatiq_entry -p 2 -Q slow", "does not say --threads"),
        ("dramatiq actors.dramatiq_entry -p two -t 1 -Q slow", "invalid int value"),
    ],
)
def test_a_command_that_would_serve_the_wrong_lanes_is_refused(line, problem):
    """Row 15: each of these commands starts, and does something else than intended."""
    with pytest.raises(WrongCall, match=re.escape(problem)):
        check_command_line(line.split())


def test_a_fleet_without_lanes_has_no_command():
    """Row 15: an empty -Q would serve every lane."""
    with pytest.raises(WrongCall):
        command_line(rig.Fleet(lanes=()))


def test_groups_barriers_and_limiters_are_not_used():
    """Rows 5 and 6: completion is a probe in MongoDB, limits are leases."""
    source = "\n".join(path.read_text() for path in (rig.ROOT / "actors").rglob("*.py"))
    assert not re.search(r"rate_limits|\bgroup\(|Barrier|RateLimiter", source)
