"""Actors that the broker tests run in a `dramatiq` command; they write facts to a file."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware, TimeLimitExceeded, raise_thread_exception

from actors.broker.broker import build_broker
from actors.middleware import default_middleware, stop_requested
from actors.middleware.watchdog import Watchdog


def fact(name: str, value: object = "") -> None:
    with Path(os.environ["RIG_FACTS"]).open("a") as file:
        file.write(f"{name} {value}\n")


class Ready(Middleware):
    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        fact("ready", os.getpid())

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        fact("stopped", os.getpid())


hardened = os.environ["RIG_KIND"] == "hardened"
if hardened:
    heartbeat = int(os.environ.get("RIG_HEARTBEAT", "15000"))
    middleware = default_middleware(watchdog=Watchdog(interval=0.2))
    broker = build_broker(os.environ["RIG_URL"], middleware=middleware, namespace="rig", heartbeat_timeout=heartbeat)
    if place := os.environ.get("RIG_PLACE"):
        broker.broker_id = "|".join((place, *broker.broker_id.split("|")[1:]))
else:
    broker = RedisBroker(url=os.environ["RIG_URL"], namespace="rig")
broker.add_middleware(Ready())
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="lane", max_retries=0, time_limit=60_000)
def note(name: str) -> None:
    fact("noted", name)


@dramatiq.actor(queue_name="lane", max_retries=0, time_limit=60_000)
def batches(name: str, count: int) -> None:
    fact("began", f"{name} {os.getpid()}")
    for number in range(count):
        threading.Event().wait(0.3)
        if hardened and stop_requested():
            fact("checkpoint", f"{name} {number}")
            return
    fact("ended", name)


@dramatiq.actor(queue_name="lane", max_retries=0, time_limit=60_000)
def crash(name: str) -> None:
    fact("crashed", name)
    os.kill(os.getpid(), signal.SIGKILL)


@dramatiq.actor(queue_name="lane", max_retries=0, time_limit=60_000)
def end_another_thread() -> None:
    """Raise a late asynchronous exception in the other worker threads, as a time limit does to a thread that waits."""
    for thread in threading.enumerate():
        if type(thread).__name__ == "WorkerThread" and thread is not threading.current_thread():
            raise_thread_exception(thread.ident, TimeLimitExceeded)
    fact("interrupted")
