"""Lanes of messages, their retries, and their dead letters (docs/broker.md, rows 12, 13, 14)."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import dramatiq
import pytest
from dramatiq.errors import QueueNotFound, Retry

from actors.broker.queue_admin import depths, drop, list_dead, replay
from actors.fleet import run_fleet_in_process, stop_fleets
from actors.middleware import CertainRetries, LogContext, Refused, Reroute, clear_stop, default_middleware
from actors.middleware.reroute import VERSIONS
from engine.errors import NotFound

rig = SimpleNamespace(**run_path(str(Path(__file__).parents[3] / "stock" / "rig.py")))
valkey = rig.valkey


def actor(broker, function, **options):
    limits = {"max_retries": 0, "time_limit": 10_000, "queue_name": "lane", **options}
    return dramatiq.actor(function, broker=broker, **limits)


def test_an_undeclared_queue_is_refused_with_a_suggestion(valkey):
    """Row 12: stock fills an undeclared queue silently."""
    broker = rig.hardened(valkey.url, "fast", "slow")
    note = actor(broker, lambda: None, actor_name="note", queue_name="fast")
    with pytest.raises(QueueNotFound, match="did you mean 'slow'"):
        broker.enqueue(note.message().copy(queue_name="slwo"))
    assert valkey.client.keys("*slwo*") == []
    broker.enqueue(note.message().copy(queue_name="slow"))
    assert [depth.ready for depth in depths(broker)] == [0, 1]
    broker.close()


def test_a_worker_for_an_unknown_lane_or_for_none_does_not_start(valkey):
    """Rows 12 and 15: an unknown lane would serve nothing, no lane everything."""
    broker = rig.hardened(valkey.url, "fast")
    with pytest.raises(Refused, match="did you mean 'fast'"):
        dramatiq.Worker(broker, queues={"fats"}).start()
    with pytest.raises(Refused, match="every queue"):
        dramatiq.Worker(broker, queues=None).start()
    broker.close()


def test_a_long_delay_is_refused(valkey):
    """Row 13: the delay queue is first-in-first-out and in memory; long waits are `due_at` in MongoDB."""
    broker = rig.hardened(valkey.url)
    note = actor(broker, lambda: None, actor_name="note")
    with pytest.raises(ValueError, match="due_at"):
        note.send_with_options(delay=3_600_000)
    note.send_with_options(delay=60_000)
    assert depths(broker)[0].delayed == 1
    broker.close()


def test_an_actor_without_its_own_limits_is_refused(valkey):
    """Row 14: the defaults are 20 retries over seven days."""
    broker = rig.hardened(valkey.url)
    with pytest.raises(Refused, match="max_retries and time_limit"):
        dramatiq.actor(lambda: None, broker=broker, actor_name="careless", queue_name="lane")
    broker.close()


def test_retries_end_at_the_actors_limit_and_never_wait_longer_than_the_cap(valkey):
    """Row 14: a deferral by `Retry` would use up the retries and could wait for days."""
    middleware = default_middleware(retries=CertainRetries(max_backoff=timedelta(milliseconds=50)))
    broker = rig.hardened(valkey.url, middleware=middleware)
    runs = []

    def defers():
        runs.append(1)
        raise Retry(delay=86_400_000)

    actor(broker, defers, max_retries=2).send()
    with rig.running(broker):
        rig.wait_for(lambda: list_dead(broker, "lane"), what="the dead letter")
    assert len(runs) == 3


def test_dead_letters_are_listed_replayed_and_dropped(valkey):
    """`tidegate queue deadletters|replay|drop`: a replayed message starts anew."""
    broker = rig.hardened(valkey.url)
    broken = threading.Event()
    broken.set()
    done = []

    def works_when_mended(number):
        if broken.is_set():
            raise RuntimeError("no")
        done.append(number)

    mended = actor(broker, works_when_mended, max_retries=1, min_backoff=10, max_backoff=20)
    broker.enqueue_many(mended.message(number) for number in range(3))
    with rig.running(broker):
        rig.wait_for(lambda: depths(broker)[0].dead == 3, what="three dead letters")
        letters = {letter.args[0]: letter for letter in list_dead(broker, "lane")}
        assert {letter.retries for letter in letters.values()} == {1}
        assert {letter.actor for letter in letters.values()} == {"works_when_mended"}
        assert len(list_dead(broker, "lane", limit=2)) == 2
        broken.clear()
        assert replay(broker, "lane", [letters[1].id]) == 1
        rig.wait_for(lambda: done == [1], what="the replayed one")
        with pytest.raises(NotFound):
            replay(broker, "lane", [letters[1].id])
        assert drop(broker, "lane", [letters[0].id]) == 1
        assert replay(broker, "lane") == 1
        rig.wait_for(lambda: done == [1, 2], what="the other one")
        assert depths(broker)[0].dead == 0


def test_a_message_on_the_wrong_lane_moves_and_carries_the_new_lanes_limit(valkey):
    """An edited policy reroutes queued messages when a worker picks them up."""
    current = {"lane": "slow"}
    reroute = Reroute(lambda message: current["lane"], lane_options=lambda lane: {"time_limit": 7_000})
    broker = rig.hardened(valkey.url, "fast", "slow", middleware=default_middleware(reroute=reroute))
    ran = []
    note = actor(broker, ran.append, actor_name="note", queue_name="fast")
    note.send("a")
    with rig.running(broker, rig.Fleet(lanes=("fast",))):
        rig.wait_for(lambda: [depth.ready for depth in depths(broker)] == [0, 1], what="the move to slow")
    assert ran == []
    stored = dramatiq.Message.decode(valkey.client.hvals("tidegate:slow.msgs")[0])
    assert (stored.queue_name, stored.options["time_limit"], stored.options["hops"]) == ("slow", 7_000, {"": 1})


def test_a_message_that_two_policies_reroute_back_and_forth_runs_after_two_hops(valkey):
    """Two processes may hold different policies for a moment."""
    reroute = Reroute(lambda message: "slow" if message.queue_name == "fast" else "fast")
    broker = rig.hardened(valkey.url, "fast", "slow", middleware=default_middleware(reroute=reroute))
    ran = []
    actor(broker, ran.append, actor_name="note", queue_name="fast").send("a")
    with rig.running(broker, rig.Fleet(lanes=("fast", "slow"))):
        rig.wait_for(lambda: ran == ["a"], what="the run")
        rig.wait_for(lambda: all((d.ready, d.taken) == (0, 0) for d in depths(broker)), what="empty queues")
    assert ran == ["a"]


def test_a_message_that_waits_through_many_edits_follows_each_of_them(valkey):
    """A limit over all moves would leave it in the lane of an edit that no longer holds."""
    current = {"lane": "slow", "version": "v0"}
    reroute = Reroute(lambda message: current["lane"], version=lambda: current["version"])
    broker = rig.hardened(valkey.url, "fast", "slow", middleware=default_middleware(reroute=reroute))
    ran = []
    actor(broker, ran.append, actor_name="note", queue_name="fast").send("a")
    for edit in range(1, 7):
        there, here = ("slow", "fast") if edit % 2 else ("fast", "slow")
        current.update(lane=there, version=f"v{edit}")
        with fleet_of(broker, here):
            rig.wait_for(lambda: valkey.client.llen(f"tidegate:{current['lane']}") == 1, what="the move")
    assert ran == []
    stored = dramatiq.Message.decode(valkey.client.hvals("tidegate:fast.msgs")[0])
    assert len(stored.options["hops"]) == VERSIONS
    with fleet_of(broker, "fast"):
        rig.wait_for(lambda: ran == ["a"], what="the run")
    broker.close()


def test_two_processes_with_different_policies_pass_a_message_on_a_few_times_only(valkey):
    moves = []

    def disagree(message):
        moves.append(message.queue_name)
        return "slow" if message.queue_name == "fast" else "fast"

    reroute = Reroute(disagree, version=lambda: f"of-{moves[-1]}")  # each lane's process has a version of its own
    broker = rig.hardened(valkey.url, "fast", "slow", middleware=default_middleware(reroute=reroute))
    ran = []
    actor(broker, ran.append, actor_name="note", queue_name="fast").send("a")
    with rig.running(broker, rig.Fleet(lanes=("fast", "slow"), threads=1)):
        rig.wait_for(lambda: ran == ["a"], what="the run")
    assert len(moves) == 5, "two moves under each version, then it runs"


@contextmanager
def fleet_of(broker, lane):
    worker = run_fleet_in_process(broker, rig.Fleet(lanes=(lane,), threads=1))
    yield
    stop_fleets(broker, [worker], timeout=timedelta(seconds=3))
    clear_stop()


def test_a_message_for_a_missing_lane_runs_in_its_present_lane(valkey):
    """A message that runs late is worse than one in a slow lane."""
    broker = rig.hardened(valkey.url, middleware=default_middleware(reroute=Reroute(lambda message: "gone")))
    ran = []
    actor(broker, ran.append, actor_name="note").send("a")
    with rig.running(broker):
        rig.wait_for(lambda: ran == ["a"], what="the run")


def test_a_message_above_a_kilobyte_is_refused(valkey):
    """Messages carry ids only."""
    broker = rig.hardened(valkey.url)
    note = actor(broker, lambda text: None, actor_name="note")
    with pytest.raises(Refused, match="bytes for note"):
        note.send("x" * 1_000)
    assert depths(broker)[0].ready == 0
    note.send("x" * 300)
    broker.close()


def test_the_log_context_follows_the_message_and_is_cleared_after_run_and_skip(valkey):
    """The context survives a retry and a rerouting; the next message of the thread starts without one."""
    bound = threading.local()
    seen, cleared = [], []

    def clear():
        bound.context = None
        cleared.append(1)

    context = LogContext(
        capture=lambda: {"trace_id": "t-1"}, bind=lambda given: setattr(bound, "context", dict(given)), clear=clear
    )
    reroute = Reroute(lambda message: "slow")
    broker = rig.hardened(valkey.url, "fast", "slow", middleware=default_middleware(context=context, reroute=reroute))

    def fails_once():
        seen.append(bound.context["trace_id"])
        if len(seen) == 1:
            raise Retry(delay=10)

    actor(broker, fails_once, queue_name="fast", max_retries=1).send()
    context.capture = dict  # from here on no context is set
    with rig.running(broker, rig.Fleet(lanes=("fast", "slow"), threads=1)):
        rig.wait_for(lambda: len(seen) == 2, what="both runs")
        rig.wait_for(lambda: all(d.taken == 0 for d in depths(broker)), what="the end")
    assert seen == ["t-1", "t-1"]
    assert len(cleared) == 6  # before and after each of the skip, the failure, the success
