"""Changes the size of a running `dramatiq.Worker`: threads, messages in hand and pauses, while its messages go on."""

from __future__ import annotations

from datetime import timedelta
from threading import Lock, Thread
from typing import Any, Final
from weakref import WeakSet

from dramatiq import Worker
from dramatiq.common import dq_name, q_name

from engine.clock import millis

_retired: Final[WeakSet[Thread]] = WeakSet()
_resizing: Final = Lock()


def retired(thread: Thread) -> bool:
    """Return whether this worker thread was asked to end after its message; the watchdog does not miss it."""
    return thread in _retired


def resize(worker: Worker, threads: int) -> None:
    """Let a running worker have this many threads: start the missing ones, or let the last ones end.

    A thread that ends finishes its message first. It stays in `worker.workers` until then, so a stop waits for it.
    """
    with _resizing:
        worker.workers = [thread for thread in worker.workers if thread.is_alive() or not retired(thread)]
        worker.worker_threads = threads
        serving = [thread for thread in worker.workers if not retired(thread)]
        for thread in serving[threads:]:
            _retired.add(thread)
            thread.stop()
        for _ in range(threads - len(serving)):
            worker._add_worker()  # noqa: SLF001 - what `Worker.start` does for each thread


def set_pace(worker: Worker, *, prefetch: int, pause: timedelta) -> None:
    """Set the messages in hand per lane, and the longest pause between two polls of an idle queue."""
    worker.queue_prefetch = prefetch
    worker.worker_timeout = millis(pause)
    for thread in worker.workers:
        thread.timeout = pause.total_seconds()
    for name, consumer in list(worker.consumers.items()):
        consumer.worker_timeout = worker.worker_timeout
        hardened: Any = consumer.consumer
        if hardened is not None:
            hardened.timeout = worker.worker_timeout
        if name == q_name(name) and consumer.prefetch:
            _fetch(worker, name, prefetch)


def take_up(worker: Worker, lane: str) -> None:
    """Let a running worker serve a declared lane, from now on or again."""
    worker.consumer_whitelist = {*(worker.consumer_whitelist or ()), lane}
    for name, most in ((lane, worker.queue_prefetch), (dq_name(lane), worker.delay_prefetch)):
        if name in worker.consumers:
            _fetch(worker, name, most)
        else:
            worker._add_consumer(name, delay=name != lane)  # noqa: SLF001 - as declaring the lane does


def leave(worker: Worker, lane: str) -> None:
    """Let a running worker fetch nothing more from a lane; it works off and acknowledges what it has in hand."""
    for name in (lane, dq_name(lane)):
        if name in worker.consumers:
            _fetch(worker, name, 0)


def fetched(worker: Worker) -> set[str]:
    """Return the lanes from which a worker fetches messages.

    A consumer that was just being built when its limit changed has the old one: it counts as fetching.
    """
    return {name for name in list(worker.consumers) if name == q_name(name) and _limit(worker, name)}


def _limit(worker: Worker, name: str) -> int:
    thread = worker.consumers[name]
    hardened: Any = thread.consumer
    return max(thread.prefetch, 0 if hardened is None else hardened.prefetch)


def _fetch(worker: Worker, name: str, most: int) -> None:
    """Limit the messages in hand of a queue; a consumer that starts again after an outage keeps the limit."""
    thread = worker.consumers[name]
    thread.prefetch = most
    hardened: Any = thread.consumer
    if hardened is not None:
        hardened.prefetch = most
