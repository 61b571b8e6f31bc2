"""An outage of Redis costs time, and never a message or a thread (docs/broker.md, rows 1, 2 and 7)."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import dramatiq
import pytest
from dramatiq.errors import ConnectionClosed, Retry

from actors.broker.queue_admin import depths, list_dead

rig = SimpleNamespace(**run_path(str(Path(__file__).parents[3] / "stock" / "rig.py")))
valkey, quick_reconnects, command = rig.valkey, rig.quick_reconnects, rig.command


def test_a_retry_that_cannot_be_enqueued_leaves_a_dead_letter(valkey, quick_reconnects):
    """Row 1: stock swallows the error and acknowledges the original."""
    broker = rig.hardened(valkey.url)
    began, away = threading.Event(), threading.Event()

    @dramatiq.actor(broker=broker, queue_name="lane", max_retries=3, time_limit=60_000)
    def fails_while_redis_is_away():
        began.set()
        away.wait(20)
        raise ValueError("the database said no to hh-1@example.org")

    with rig.running(broker):
        fails_while_redis_is_away.send()
        assert began.wait(10)
        valkey.kill()
        away.set()
        valkey.start()
        rig.wait_for(lambda: list_dead(broker, "lane"), what="the dead letter")
        letter = list_dead(broker, "lane")[0]
        assert letter.failure.startswith("ValueError at test_broker_outage.py:")
        assert "example.org" not in letter.failure
        assert depths(broker)[0].ready == depths(broker)[0].taken == 0


def test_every_delayed_message_runs_after_an_outage(valkey, quick_reconnects, caplog):
    """Row 2: 43 retries wait in the delay queue during an outage of Redis; stock ran 9 of them."""
    broker = rig.hardened(valkey.url)
    runs: Counter[int] = Counter()
    lock = threading.Lock()

    @dramatiq.actor(broker=broker, queue_name="lane", max_retries=3, time_limit=60_000)
    def fails_once(number):
        with lock:
            runs[number] += 1
        if runs[number] == 1:
            raise Retry(delay=1_500)

    with rig.running(broker) as (worker,):
        broker.enqueue_many(fails_once.message(number) for number in range(43))
        rig.wait_for(lambda: len(runs) == 43 and depths(broker)[0].delayed == 43, what="43 delayed messages")
        valkey.kill()
        rig.wait_for(
            lambda: any("connection error" in r.message and ".DQ" in r.name for r in caplog.records),
            what="the delay queue's consumer noticing",
        )
        valkey.start()
        rig.wait_for(lambda: all(runs[number] >= 2 for number in range(43)), 20, "43 of 43")
        assert all(thread.is_alive() for thread in [*worker.workers, *worker.consumers.values()])


def test_a_frozen_redis_costs_no_message(valkey, quick_reconnects, monkeypatch):
    """Row 2: a timed-out answer is a connection error too; the messages that it carried are requeued."""
    monkeypatch.setattr("actors.broker.redis_client.SOCKET_SECONDS", 0.3)
    broker = rig.hardened(valkey.url)
    runs: Counter[int] = Counter()

    @dramatiq.actor(broker=broker, queue_name="lane", max_retries=0, time_limit=60_000)
    def counts(number):
        runs[number] += 1

    with rig.running(broker) as (worker,):
        broker.enqueue_many(counts.message(number) for number in range(20))
        valkey.freeze()
        with pytest.raises(ConnectionClosed):
            counts.send(20)
        valkey.thaw()
        rig.wait_for(lambda: len(runs) >= 20, what="20 messages")
        rig.wait_for(lambda: depths(broker)[0].taken == depths(broker)[0].ready == 0, what="an empty queue")
        assert all(thread.is_alive() for thread in [*worker.workers, *worker.consumers.values()])


def test_fetched_ids_whose_answer_was_lost_are_requeued_and_held_ones_are_not(valkey):
    """Row 2: if the answer of the script is lost, Redis believes that this process holds the messages."""
    broker = rig.hardened(valkey.url)
    broker.declare_actor(dramatiq.actor(_nothing, broker=broker, queue_name="lane", max_retries=0, time_limit=1_000))
    for _ in range(3):
        _nothing_message(broker)
    first = broker.consume("lane", prefetch=1, timeout=10)
    held = next(first)
    broker.do_fetch("lane", 2)  # the answer is lost
    assert depths(broker)[0].ready == 0
    broker.consume("lane", prefetch=1, timeout=10)
    assert depths(broker)[0].ready == 2
    first.ack(held)
    assert depths(broker)[0].taken == 0
    broker.close()


def test_a_closed_consumer_requeues_its_fetched_messages(valkey):
    """Stock leaves messages that it fetched and did not hand out to the heartbeat timeout."""
    broker = rig.hardened(valkey.url)
    dramatiq.actor(_nothing, broker=broker, queue_name="lane", max_retries=0, time_limit=1_000)
    for _ in range(4):
        _nothing_message(broker)
    consumer = broker.consume("lane", prefetch=4, timeout=10)
    consumer.ack(next(consumer))
    assert depths(broker)[0].taken == 3
    consumer.close()
    assert (depths(broker)[0].ready, depths(broker)[0].taken) == (3, 0)
    broker.close()


def test_an_unreadable_message_becomes_a_dead_letter_and_the_others_run(valkey):
    """A stock consumer fails on the message each time it starts again."""
    broker = rig.hardened(valkey.url)
    done = threading.Event()

    @dramatiq.actor(broker=broker, queue_name="lane", max_retries=0, time_limit=1_000)
    def works():
        done.set()

    valkey.client.hset("tidegate:lane.msgs", "odd", b"{not json")
    valkey.client.rpush("tidegate:lane", "odd")
    works.send()
    with rig.running(broker):
        assert done.wait(10)
        rig.wait_for(lambda: list_dead(broker, "lane"), what="the dead letter")
        assert list_dead(broker, "lane")[0].failure == "unreadable"


def test_heartbeats_go_on_while_everything_is_full(valkey, monkeypatch):
    """Row 7: stock sends no heartbeat then, and another process gets the same message."""
    monkeypatch.setattr("dramatiq.worker.DELAY_QUEUE_PREFETCH", 1)
    monkeypatch.setattr("actors.broker.consumer.HEARTBEAT_SECONDS", 0.2)
    runs: list[str] = []
    release = threading.Event()

    def blocks(broker, name):
        @dramatiq.actor(broker=broker, queue_name="lane", actor_name="blocks", max_retries=0, time_limit=60_000)
        def blocks():
            runs.append(name)
            release.wait(20)

        return blocks

    first, two = (rig.hardened(valkey.url, heartbeat_timeout=2_000) for _ in range(2))
    actor = blocks(first, "one")
    blocks(two, "two")
    with rig.running(first, rig.Fleet(threads=1, prefetch=1)):
        actor.send_with_options(delay=300_000)  # fills the delay queue's prefetch
        actor.send()
        rig.wait_for(lambda: runs == ["one"], what="the first run")
        rig.wait_for(lambda: depths(first)[0].ready == 0)
        with rig.running(two):
            two.quiet_until = 0.0  # the grace after a start
            assert rig.holds_for(lambda: runs == ["one"], 4.0)
            release.set()


def test_heartbeats_are_in_the_clock_of_redis(valkey, monkeypatch):
    """Row 3: a machine whose clock is a minute off must neither count as dead nor declare others dead."""
    broker = rig.hardened(valkey.url)
    monkeypatch.setattr("actors.broker.broker.current_millis", lambda: rig.time.time_ns() // 1_000_000 - 60_000)
    broker.consume("lane", timeout=10)
    broker.do_fetch("lane", 1)
    seconds, micros = valkey.client.time()
    beat = valkey.client.zscore("tidegate:__heartbeats__", broker.broker_id)
    assert abs(seconds * 1_000 + micros / 1_000 - beat) < 5_000
    broker.close()


def _nothing():
    """Never runs."""


def _nothing_message(broker):
    broker.enqueue(broker.get_actor("_nothing").message())
