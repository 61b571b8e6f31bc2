"""`python -m bench.query_metrics`: measure the cost of measuring, one call of a store's method with and without it."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter

from engine.query_metrics import MEASUREMENTS, measured, named_queries

CALLS = 100_000
ROUNDS = 5


class Bare:
    """A store that answers at once."""

    def get(self) -> None:
        """Do nothing."""


@named_queries("bench")
class Measured:
    """The same store, measured."""

    def get(self) -> None:
        """Do nothing."""


def block() -> None:
    """Run an empty measured block."""
    with measured("bench.block"):
        pass


def each(call: Callable[[], None]) -> float:
    """Return the microseconds of one call, the median of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        began = perf_counter()
        for _ in range(CALLS):
            call()
        rounds.append((perf_counter() - began) / CALLS * 1e6)
    return median(rounds)


def main() -> None:
    """Print the table."""
    bare = each(Bare().get)
    print(f"a method, not measured     {bare:.2f} us")
    print(f"a method, measured         {each(Measured().get) - bare:.2f} us more")
    print(f"a block (`with measured`)  {each(block):.2f} us")
    began = perf_counter()
    figures = MEASUREMENTS.figures()
    print(f"a snapshot                 {(perf_counter() - began) / len(figures) * 1e6:.0f} us a query")


if __name__ == "__main__":
    main()
