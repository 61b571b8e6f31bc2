"""Signals and crashes with the stock broker (docs/broker.md, rows 3, 4, 8, 9); see test_broker_processes.py."""

from __future__ import annotations

import signal
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker

rig = SimpleNamespace(**run_path(str(Path(__file__).parent / "rig.py")))
valkey, command = rig.valkey, rig.command
pytestmark = pytest.mark.stock


def send(valkey, actor, *args):
    broker = RedisBroker(url=valkey.url, namespace="rig")
    broker.declare_queue("lane")
    broker.enqueue(Message(queue_name="lane", actor_name=actor, args=args, kwargs={}, options={}))
    broker.client.connection_pool.disconnect()


def test_stock_leaves_a_killed_workers_message_for_more_than_half_a_minute(valkey, command):
    """Row 3: a message returns after 60 s, then by chance, one in a thousand commands."""
    victim = command(kind="stock")
    send(valkey, "batches", "long", 300)
    rig.wait_for(lambda: victim.facts("began"), what="the first run")
    rescuer = command(kind="stock")
    victim.signal_group(signal.SIGKILL)
    assert rig.holds_for(lambda: len(rescuer.facts("began")) == 1, 35)


def test_stock_drops_its_work_at_a_sigterm_to_the_group(valkey, command):
    """Row 4: stock takes the second SIGTERM for an impatient operator's."""
    workers = command(kind="stock")
    send(valkey, "batches", "a", 10)
    rig.wait_for(lambda: workers.facts("began"), what="the run")
    workers.signal_group(signal.SIGTERM)
    workers.process.wait(20)
    assert workers.facts("ended") == [], "ten batches take 3 s, and nobody waits for them"
    assert workers.facts("stopped") == [], "the worker did not shut down in order"
    assert len(valkey.client.hgetall("rig:lane.msgs")) == 1, "unacknowledged"
    assert valkey.client.llen("rig:lane") == 0, "and not given back"


def test_stock_continues_with_a_dead_worker_thread(valkey, command):
    """Row 8: stock does not notice the dead thread, and its work is not done."""
    workers = command(kind="stock")
    send(valkey, "end_another_thread")
    rig.wait_for(lambda: workers.facts("interrupted"), what="the interrupt")
    rig.wait_for(lambda: "Exception in thread" in workers.log.read_text(), what="the thread's end")
    assert rig.holds_for(lambda: workers.process.poll() is None, 5)


def test_stock_counts_no_deliveries(valkey):
    """Row 9: a message that kills its worker is redelivered for ever, and carries no count."""
    options = {"heartbeat_timeout": 1, "maintenance_chance": 1_000_000}
    send(valkey, "crash", "poison")
    seen = set()
    for _ in range(5):  # five processes fetch it and die
        victim = RedisBroker(url=valkey.url, namespace="rig", **options)
        rig.wait_for(lambda broker=victim: seen.update(broker.do_fetch("lane", 1)) or _taken(valkey), what="delivery")
        victim.client.connection_pool.disconnect()
    assert len(seen) == 1


def _taken(valkey):
    return valkey.client.llen("rig:lane") == 0


def test_stock_ends_the_whole_command_with_one_dead_child(valkey, command):
    """Row 9: a supervisor must restart the command."""
    workers = command(kind="stock", processes=2)
    send(valkey, "crash", "poison")
    workers.process.wait(20)
    assert len(workers.facts("stopped")) == 1, "the healthy child is stopped too"
