"""What an outage of Redis costs with the stock broker (docs/broker.md, rows 1, 2, 7); see test_broker_outage.py."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import dramatiq
import pytest
from dramatiq.errors import Retry

rig = SimpleNamespace(**run_path(str(Path(__file__).parent / "rig.py")))
valkey, quick_reconnects = rig.valkey, rig.quick_reconnects
pytestmark = pytest.mark.stock


def test_stock_loses_a_message_whose_retry_cannot_be_enqueued(valkey, quick_reconnects):
    """Row 1: the message is in no queue and not among the dead letters."""
    broker = rig.stock(valkey.url)
    began, away = threading.Event(), threading.Event()

    @dramatiq.actor(broker=broker, queue_name="lane", max_retries=3)
    def fails_while_redis_is_away():
        began.set()
        away.wait(20)
        raise ValueError("no")

    with rig.running_stock(broker):
        fails_while_redis_is_away.send()
        assert began.wait(10)
        valkey.kill()
        away.set()
        valkey.start()
        rig.wait_for(lambda: valkey.client.hlen("dramatiq:lane.msgs") == 0, what="the acknowledgement")
        left = [key for key in valkey.client.keys("dramatiq:*") if not key.endswith(b"__heartbeats__")]
        assert left == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_stock_strands_delayed_messages_after_an_outage(valkey, quick_reconnects):
    """Row 2: the thread of the delay queue dies or loses its messages; the process runs on in both cases."""
    broker = rig.stock(valkey.url)
    runs: Counter[int] = Counter()
    lock = threading.Lock()

    @dramatiq.actor(broker=broker, queue_name="lane", max_retries=3)
    def fails_once(number):
        with lock:
            runs[number] += 1
        if runs[number] == 1:
            raise Retry(delay=1_500)

    with rig.running_stock(broker) as worker:
        for number in range(43):
            fails_once.send(number)
        rig.wait_for(lambda: valkey.client.hlen("dramatiq:lane.DQ.msgs") == 43, what="43 delayed messages")
        valkey.kill()
        rig.wait_for(lambda: not worker.consumers["lane.DQ"].is_alive() or _forgot(worker), what="the consumer's loss")
        valkey.start()
        assert rig.holds_for(lambda: sum(count >= 2 for count in runs.values()) < 43, 8)
        assert valkey.client.hlen("dramatiq:lane.DQ.msgs") > 0, "stranded"


def _forgot(worker):
    return worker.consumers["lane.DQ"].delay_queue.empty()


def test_stock_runs_a_message_twice_when_everything_is_full(valkey, monkeypatch):
    """Row 7: a consumer with a full prefetch sends no heartbeat, so running processes count as dead."""
    monkeypatch.setattr("dramatiq.worker.DELAY_QUEUE_PREFETCH", 1)
    monkeypatch.setattr("dramatiq.worker.QUEUE_PREFETCH", 1)
    options = {"heartbeat_timeout": 1_000, "maintenance_chance": 1_000_000}
    one, two = rig.stock(valkey.url, **options), rig.stock(valkey.url, **options)
    runs: list[str] = []
    release = threading.Event()

    def blocks(broker, name):
        @dramatiq.actor(broker=broker, queue_name="lane", actor_name="blocks")
        def blocks():
            runs.append(name)
            release.wait(20)

        return blocks

    actor = blocks(one, "one")
    blocks(two, "two")
    with rig.running_stock(one, threads=1):
        actor.send_with_options(delay=300_000)
        actor.send()
        rig.wait_for(lambda: runs == ["one"], what="the first run")
        with rig.running_stock(two):
            rig.wait_for(lambda: runs == ["one", "two"], what="the second run")
            release.set()
