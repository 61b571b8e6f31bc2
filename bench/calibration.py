"""A fixed loop of this Python, whose seconds compare machines.

They are seconds of the thread on the processor: on a quiet machine they equal wall time, and they grow little if other
processes keep the machine busy.
"""

from __future__ import annotations

import time
from typing import Final

TURNS: Final = 6_000_000
REFERENCE: Final = 0.45
"""Seconds of the loop on the reference machine, at the time, to which the goals of `bench.e2e` refer."""


def calibrate(rounds: int = 7) -> float:
    """Return the processor seconds of the loop, the best of `rounds`."""
    return min(_once() for _ in range(rounds))


def _once() -> float:
    began = time.thread_time()
    value = 0
    for number in range(TURNS):
        value += number ^ (value & 7)
    return time.thread_time() - began
