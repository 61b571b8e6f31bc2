"""A fixed loop of this Python: its seconds compare machines, and a machine with itself under load."""

from __future__ import annotations

import time
from typing import Final

TURNS: Final = 6_000_000
REFERENCE: Final = 0.45
"""Seconds of the loop on the machine, at the time, to which the goals of `bench.e2e` refer."""


def calibrate(rounds: int = 7) -> float:
    """Seconds of the loop, the best of `rounds`."""
    return min(_once() for _ in range(rounds))


def _once() -> float:
    began = time.perf_counter()
    value = 0
    for number in range(TURNS):
        value += number ^ (value & 7)
    return time.perf_counter() - began
