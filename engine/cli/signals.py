"""Stop signals of the long-running commands."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import typer

from actors.middleware import request_stop, stop_requested


def on_signals() -> list[int]:
    """Handle stop signals: the first requests a stop, a repetition does nothing, a second Ctrl-C interrupts.

    Returns a list that will hold the received signals.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        return came

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
        came.append(number)
        if stop_requested() and number == signal.SIGINT:
            raise KeyboardInterrupt
        request_stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    return came


def interrupted(came: list[int]) -> None:
    """Exit with the code of a Ctrl-C if a Ctrl-C came first."""
    if came[:1] == [signal.SIGINT]:
        raise typer.Exit(130)
