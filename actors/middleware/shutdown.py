"""The one flag that says: this process is asked to stop.

A SIGTERM must not cut a batch in half, and a batch lasts at most 1.5 s, so whoever works in batches asks
`stop_requested()` between two of them and puts the rest of the slice back. The flag belongs to the process, not to
a worker: a process has one life.
"""

from __future__ import annotations

import _thread
import threading
from typing import Final


class _Flag:
    """A boolean that a signal handler may raise, and an event that sleepers wait on."""

    def __init__(self) -> None:
        self.raised = False
        self.event = threading.Event()


_FLAG: Final = _Flag()


def stop_requested() -> bool:
    """Whether the process was asked to stop; costs an attribute read, so ask it between any two batches."""
    return _FLAG.raised


def request_stop() -> None:
    """Ask the process to stop. Safe inside a signal handler, and twice.

    `Event.set` takes a lock that the interrupted main thread may hold, so a thread of its own sets the event; the
    boolean is true at once.
    """
    if not _FLAG.raised:
        _FLAG.raised = True
        _thread.start_new_thread(_FLAG.event.set, ())


def clear_stop() -> None:
    """Take the request back: for a process that starts its fleets again, and for tests."""
    _FLAG.raised = False
    _FLAG.event = threading.Event()


def wait_for_stop(seconds: float) -> bool:
    """Sleep for at most `seconds`, less when the process is asked to stop; returns `stop_requested()`."""
    _FLAG.event.wait(seconds)
    return _FLAG.raised
