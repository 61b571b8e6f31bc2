"""The `dramatiq` command with the hardened broker, and what signals do to it (docs/broker.md, rows 3, 4, 8 and 9)."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from dramatiq import Message

from actors.broker.queue_admin import depths

rig = SimpleNamespace(**run_path(str(Path(__file__).parents[3] / "stock" / "rig.py")))
valkey, quick_reconnects, command = rig.valkey, rig.quick_reconnects, rig.command


def send(broker, actor, *args):
    broker.enqueue(Message(queue_name="lane", actor_name=actor, args=args, kwargs={}, options={}))


def test_a_killed_workers_message_comes_back_within_25_seconds(valkey, command):
    """Row 3: stock waits 60 s, then a random time. Of a process on another machine only the heartbeat is known."""
    broker = rig.hardened(valkey.url, namespace="rig")
    victim = command(RIG_PLACE="another-machine/")
    send(broker, "batches", "long", 300)
    rig.wait_for(lambda: victim.facts("began"), what="the first run")
    rescuer = command()
    victim.signal_group(signal.SIGKILL)
    killed = time.monotonic()
    rig.wait_for(lambda: len(rescuer.facts("began")) == 2, 25, "the second run")
    assert time.monotonic() - killed > 10, "an earlier return means that the living may lose their work, too"
    broker.close()


def test_messages_of_a_killed_process_are_requeued_by_the_next_one_on_its_machine(valkey, command):
    """Row 3: the next process on the machine knows that the first is dead; it need not wait for its heartbeat."""
    broker = rig.hardened(valkey.url, namespace="rig")
    victim = command(RIG_HEARTBEAT="3600000")
    for name in "abc":
        send(broker, "batches", name, 300)
    rig.wait_for(lambda: len(victim.facts("began")) == 2, what="two runs; the third message is prefetched")
    victim.signal_group(signal.SIGKILL)
    successor = command(RIG_HEARTBEAT="3600000")
    rig.wait_for(lambda: len(successor.facts("began")) == 4, 15, "two further runs")
    successor.signal_group(signal.SIGTERM)
    assert successor.process.wait(60) == 0
    assert depths(broker)[0].taken == 0
    assert valkey.client.keys("rig:__acks__*") == []
    broker.close()


def test_messages_of_a_running_process_are_not_requeued(valkey, command):
    """A process that starts on the same machine knows that the other runs, even after a long silence."""
    broker = rig.hardened(valkey.url, namespace="rig")
    first = command(RIG_HEARTBEAT="3600000")
    send(broker, "batches", "a", 300)
    rig.wait_for(lambda: first.facts("began"), what="the run")
    valkey.client.zadd("rig:__heartbeats__", dict.fromkeys(valkey.client.zrange("rig:__heartbeats__", 0, -1), 1))
    second = command(RIG_HEARTBEAT="3600000")
    send(broker, "note", "there")
    rig.wait_for(lambda: second.facts("noted"), what="the start of either's consumer")
    rig.wait_for(lambda: depths(broker)[0].taken == 1, what="the end of the note")
    assert len(second.facts("began")) == 1
    broker.close()


def test_sigterm_to_the_whole_group_lets_a_batch_finish(valkey, command):
    """Row 4: a worker gets SIGTERM twice, from the group and from its parent; stock leaves at once."""
    broker = rig.hardened(valkey.url, namespace="rig")
    workers = command()
    send(broker, "batches", "a", 300)
    rig.wait_for(lambda: workers.facts("began"), what="the run")
    workers.signal_group(signal.SIGTERM)
    assert workers.process.wait(60) == 0
    assert workers.facts("checkpoint"), "the actor saw the request between two batches"
    assert workers.facts("stopped"), "the worker shut down in order"
    assert (depths(broker)[0].ready, depths(broker)[0].taken) == (0, 0)
    broker.close()


def test_workers_stop_within_five_seconds_and_requeue_messages_not_begun(valkey, command):
    """Row 4: a supervisor such as honcho kills after 5 s."""
    broker = rig.hardened(valkey.url, namespace="rig")
    workers = command()
    for name in "abcdef":
        send(broker, "batches", name, 300)
    rig.wait_for(lambda: len(workers.facts("began")) == 2, what="two runs")
    began = time.monotonic()
    os.kill(workers.process.pid, signal.SIGTERM)
    assert workers.process.wait(60) == 0
    assert time.monotonic() - began < 5.0
    assert (depths(broker)[0].ready, depths(broker)[0].taken) == (4, 0)

    idle = command()
    began = time.monotonic()
    broker.flush("lane")
    os.kill(idle.process.pid, signal.SIGTERM)
    assert idle.process.wait(60) == 0
    assert time.monotonic() - began < 5.0
    broker.close()


def test_a_crashing_message_is_redelivered_and_each_crash_ends_the_command_for_its_supervisor(valkey, command):
    """Row 9: the queue counts no deliveries, so the claim in MongoDB does."""
    broker = rig.hardened(valkey.url, namespace="rig")
    first = command(processes=2, RIG_HEARTBEAT="1000")
    send(broker, "crash", "poison")
    assert first.process.wait(60) != 0, "a supervisor must not take this for a wish to stop"
    stored = valkey.client.hvals("rig:lane.msgs")
    second = command(RIG_HEARTBEAT="1000")
    assert second.process.wait(60) != 0
    crashes = second.facts("crashed")
    assert set(crashes) == {"poison"}
    assert len(crashes) >= 2, "three where the first command's other process had just started and put it back"
    assert valkey.client.hvals("rig:lane.msgs") == stored, "nothing in the message tells that it was delivered before"
    broker.close()


def test_a_process_that_lost_a_worker_thread_requeues_its_messages_and_ends(valkey, command):
    """Row 8: stock continues with fewer threads, or none."""
    broker = rig.hardened(valkey.url, namespace="rig")
    workers = command()
    send(broker, "end_another_thread")
    rig.wait_for(lambda: workers.facts("interrupted"), what="the interrupt")
    assert workers.process.wait(60) == 70
    assert "1 of 2 worker threads are dead" in workers.log.read_text()
    assert depths(broker)[0].taken == 0
    broker.close()
