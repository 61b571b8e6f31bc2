"""Formats the tables of the benches, and puts them into `docs/benchmarks.md`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.measure import Rounds

PAGE: Final = Path(__file__).parent.parent / "docs" / "benchmarks.md"
HEAD: Final = (
    "| way | users a pass | matched | users/s, median (slowest to fastest) | ratio "
    "| processor a user: ours, mongod | MongoDB commands per 1000 users | documents examined a user |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|"
)


def table(results: Sequence[Rounds]) -> str:
    """Return the results as a Markdown table; ratios are to the first way."""
    rows = [HEAD]
    for result in results:
        slowest, fastest = result.spread()
        last = result.passes[-1]
        rows.append(
            f"| {result.name} | {last.users:,} | {last.matched:,} ({last.matched / last.users:.1%}) "
            f"| {result.rate():,.0f} ({slowest:,.0f} to {fastest:,.0f}) | {result.rate() / results[0].rate():.1f} "
            f"| {result.per_user('own_cpu') * 1e6:.1f} µs, {result.per_user('mongod_cpu') * 1e6:.1f} µs "
            f"| {result.per_user('commands') * 1000:,.2f} | {result.per_user('examined'):.3f} |"
        )
    return "\n".join(rows)


def publish(mark: str, text: str, *, print_only: bool = False) -> None:
    """Print a section, and put it between its marks on the page unless `print_only`. Raises as `put`."""
    print(f"{text}\n")
    if not print_only:
        PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), mark, text), encoding="utf-8")


def put(text: str, mark: str, new: str) -> str:
    """Replace the text between `<!-- mark -->` and `<!-- /mark -->`. Raises `ValueError` if a mark is missing."""
    before, opening, rest = text.partition(f"<!-- {mark} -->")
    _, closing, after = rest.partition(f"<!-- /{mark} -->")
    if not opening or not closing:
        raise ValueError(f"the page has no marks <!-- {mark} --> and <!-- /{mark} -->")
    return f"{before}{opening}\n\n{new}\n\n{closing}{after}"
