"""The process-wide flag that requests a stop.

A SIGTERM must not cut a batch in half. A batch lasts at most 1.5 s, so code that works in batches calls
`stop_requested()` between two of them and puts the rest of the slice back. The flag belongs to the process, not to a
worker, because a process stops only once.
"""

from __future__ import annotations

import _thread
import threading
from typing import Final
from weakref import WeakSet


class _Flag:
    """A boolean that a signal handler may set, and the events that sleepers wait on."""

    def __init__(self) -> None:
        self.raised = False
        self.event = threading.Event()
        self.others: WeakSet[threading.Event] = WeakSet()

    def end_waits(self) -> None:
        self.event.set()
        for event in tuple(self.others):
            event.set()


_FLAG: Final = _Flag()


def stop_requested() -> bool:
    """Return whether the process was asked to stop; an attribute read, cheap enough to call between any two batches."""
    return _FLAG.raised


def request_stop() -> None:
    """Ask the process to stop. Safe inside a signal handler, and safe to call twice.

    `Event.set` takes a lock that the interrupted main thread may hold, so a separate thread sets the events; the
    boolean is true at once.
    """
    if not _FLAG.raised:
        _FLAG.raised = True
        _thread.start_new_thread(_FLAG.end_waits, ())


def clear_stop() -> None:
    """Clear the stop request: for a process that starts its fleets again, and for tests."""
    _FLAG.raised = False
    _FLAG.event = threading.Event()


def wait_for_stop(seconds: float) -> bool:
    """Sleep for at most `seconds`, less if the process is asked to stop; return `stop_requested()`."""
    _FLAG.event.wait(seconds)
    return _FLAG.raised


def end_wait_on_stop(event: threading.Event) -> None:
    """Let a request to stop set `event` as well, for sleepers that wait for something else."""
    _FLAG.others.add(event)
    if _FLAG.raised:
        event.set()
