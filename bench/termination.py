"""Makes a terminated bench stop its services."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn


def end_on_term() -> None:
    """End on SIGTERM as on Ctrl-C: services are stopped on the way out. Call it in the main thread."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - a handler's signature
    raise KeyboardInterrupt
