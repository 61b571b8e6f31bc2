"""Stock defaults and interfaces that mislead (docs/broker.md, rows 8 and 10 to 16)."""

from __future__ import annotations

import logging
import os
import socket
import threading
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import dramatiq
import pytest
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker
from dramatiq.cli import make_argument_parser
from dramatiq.errors import Retry
from dramatiq.middleware import Retries, TimeLimit

rig = SimpleNamespace(**run_path(str(Path(__file__).parent / "rig.py")))
valkey, another_valkey = rig.valkey, rig.another_valkey
pytestmark = pytest.mark.stock


def message():
    return Message(queue_name="lane", actor_name="note", args=(), kwargs={}, options={})


def test_stock_time_limit_cannot_break_a_socket_call(valkey):
    """Row 8: the exception waits until the call returns by itself."""
    broker = rig.stock(valkey.url, middleware=[TimeLimit(time_limit=200, interval=50)])
    broker.emit_after("process_boot")
    silent, ours = socket.socketpair()
    began, ended = threading.Event(), threading.Event()

    @dramatiq.actor(broker=broker, queue_name="lane")
    def hangs():
        began.set()
        try:
            ours.recv(1)
        finally:
            ended.set()

    with rig.running_stock(broker):
        hangs.send()
        assert began.wait(10)
        assert not ended.wait(2), "ten times its limit"
        silent.close()
        assert ended.wait(10)
    ours.close()


def test_stock_client_by_host_runs_a_script_twice(valkey):
    """Row 10: the client retries ten times; the answer was lost, the call was not."""
    proxy = rig.Proxy(valkey.port)
    broker = RedisBroker(host="127.0.0.1", port=proxy.port)
    broker.enqueue(message())
    proxy.cut_next_answer.set()
    broker.enqueue(message())
    assert valkey.client.llen("dramatiq:lane") == 3
    broker.client.close()
    proxy.close()


def test_stock_maintenance_blocks_a_redis_that_is_shared_with_a_cache(another_valkey):
    """Row 11: a script calls KEYS over a million cache keys; Redis serves no other client meanwhile."""
    server = another_valkey("--enable-debug-command", "yes")
    server.client.execute_command("DEBUG", "POPULATE", 1_000_000)
    broker = RedisBroker(url=server.url, maintenance_chance=1_000_000)
    broker.declare_queue("lane")
    broker.enqueue(message())
    server.client.zadd("dramatiq:__heartbeats__", {"a-dead-process": 1})
    server.client.config_set("slowlog-log-slower-than", 20_000)  # microseconds
    broker.do_fetch("lane", 1)
    slow = [entry for entry in server.client.slowlog_get() if b"EVALSHA" in entry["command"].upper()]
    assert slow, "one script took more than 20 ms"
    broker.client.connection_pool.disconnect()


def test_stock_accepts_any_queue_and_ignores_a_given_one(valkey):
    """Row 12: a typo fills silently, and `send_with_options(queue_name=)` does nothing."""
    broker = rig.stock(valkey.url)
    note = dramatiq.actor(lambda: None, broker=broker, actor_name="note", queue_name="lane")
    broker.enqueue(note.message().copy(queue_name="lame"))
    assert valkey.client.llen("dramatiq:lame") == 1
    note.send_with_options(queue_name="other")
    assert (valkey.client.llen("dramatiq:other"), valkey.client.llen("dramatiq:lane")) == (0, 1)
    broker.client.connection_pool.disconnect()


def test_stock_far_future_delays_starve_a_retry(valkey, monkeypatch):
    """Row 13: the delay queue is first-in-first-out and in memory; long waits are `due_at` in MongoDB."""
    monkeypatch.setattr("dramatiq.worker.DELAY_QUEUE_PREFETCH", 50)
    broker = rig.stock(valkey.url)
    ran = threading.Event()
    far = dramatiq.actor(lambda: None, broker=broker, actor_name="far", queue_name="lane")
    near = dramatiq.actor(ran.set, broker=broker, actor_name="near", queue_name="lane")
    for _ in range(50):
        far.send_with_options(delay=6 * 86_400_000)
    near.send_with_options(delay=10)
    with rig.running_stock(broker):
        assert not ran.wait(5)


def test_stock_deferring_uses_up_the_retries(valkey):
    """Row 14: a message that only defers itself becomes a dead letter; the defaults are twenty retries, over days."""
    assert Retries().max_retries == 20
    assert Retries().max_backoff == 7 * 86_400_000
    broker = rig.stock(valkey.url)

    @dramatiq.actor(broker=broker, queue_name="lane", max_retries=2)
    def defers():
        raise Retry(delay=10)

    with rig.running_stock(broker):
        defers.send()
        rig.wait_for(lambda: valkey.client.zcard("dramatiq:lane.XQ") == 1, what="the dead letter")


def test_stock_command_line_serves_queues_not_named(valkey):
    """Row 15: an empty -Q means all, -Q before the module swallows it, -p is the number of processors."""
    parser = make_argument_parser()
    assert parser.parse_args(["actors.dramatiq_entry", "-Q"]).queues == []
    assert parser.parse_args(["actors.dramatiq_entry"]).processes == os.cpu_count()
    with pytest.raises(SystemExit):
        parser.parse_args(["-Q", "slow", "actors.dramatiq_entry"])
    broker = rig.stock(valkey.url)
    broker.declare_queue("another")
    with rig.running_stock(broker, queues=set()) as worker:
        assert {"lane", "another"} <= set(worker.consumers)


def test_stock_time_limit_never_fires_in_one_process_and_a_second_worker_warns(valkey, caplog):
    """Row 16: the timer starts at `process_boot`, which only the command line emits."""
    broker = rig.stock(valkey.url, middleware=[TimeLimit(time_limit=100, interval=50)])
    finished = threading.Event()

    @dramatiq.actor(broker=broker, queue_name="lane")
    def too_long():
        pause = threading.Event()
        for _ in range(100):
            pause.wait(0.02)
        finished.set()

    caplog.set_level(logging.WARNING)
    with rig.running_stock(broker), rig.running_stock(broker):
        assert any("same type twice" in record.message for record in caplog.records)
        too_long.send()
        assert finished.wait(10), "twenty times its limit"
