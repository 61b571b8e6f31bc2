"""Run many threads against one document, all released at the same moment."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

Result = TypeVar("Result")


def together(number: int, call: Callable[[int], Result]) -> list[Result]:
    """Call `call(0)` to `call(number - 1)` in concurrent threads and return the results in the order of the numbers."""
    barrier = Barrier(number, timeout=60)

    def one(i: int) -> Result:
        barrier.wait()
        return call(i)

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(one, range(number)))
