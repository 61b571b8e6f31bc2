"""How the long-running commands hear that they are to end."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import typer

from actors.middleware import request_stop, stop_requested


def on_signals() -> list[int]:
    """The first signal asks to stop; a second one of the same group does nothing, Ctrl-C twice still interrupts.

    Gives a list that will hold the signals that came.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        return came

    def asked(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
        came.append(number)
        if stop_requested() and number == signal.SIGINT:
            raise KeyboardInterrupt
        request_stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, asked)
    return came


def interrupted(came: list[int]) -> None:
    """Exit with the code of a Ctrl-C, if that is what ended it."""
    if came[:1] == [signal.SIGINT]:
        raise typer.Exit(130)
