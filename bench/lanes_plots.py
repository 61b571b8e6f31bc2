"""The plots of the lanes' bench, drawn from its tables in `docs/benchmarks.md`, so that both always agree."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.plots import Axis, Bars, Line, bars, chart

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "plots"
STEP: Final = 4
"""Seconds of one point of the course after a campaign turned slow."""


def draw(page: str, folder: Path = FOLDER) -> list[Path]:
    """Draw what the page has tables for; return the files."""
    made: list[Path] = []
    if rows := _rows(page, "flood"):
        path = folder / "lanes-flood.svg"
        found = [Bars(_way(row), (_last(row[4]), _last(row[5]))) for row in rows]
        title = "Waits of quick campaigns beside a flood of slow slices (p99)"
        bars(path, title, Axis("ms", logarithmic=True), ("before", "during the flood"), found)
        made.append(path)
    if rows := _rows(page, "gate"):
        path = folder / "lanes-gate.svg"
        found = [Bars(f"gate {row[0]}".replace("`", ""), (_last(row[9]), _last(row[6]), _last(row[5]))) for row in rows]
        legend = ("at rest", "beside an equal load", "during the campaign")
        bars(path, "The company's users while a campaign goes out (p99)", Axis("ms", logarithmic=True), legend, found)
        made.append(path)
    if lines := _courses(page):
        path = folder / "lanes-slow.svg"
        title = "A campaign turns slow at 0: median waits of the others"
        chart(path, title, Axis("seconds"), Axis("ms", logarithmic=True), lines)
        made.append(path)
    return made


def _part(page: str, name: str) -> str:
    return page.partition(f"<!-- bench.lanes {name} -->")[2].partition(f"<!-- /bench.lanes {name} -->")[0]


def _rows(page: str, name: str) -> list[list[str]]:
    """Return the cells of a part's table, each row with an empty first cell, without its head."""
    lines = [line for line in _part(page, name).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def _way(row: Sequence[str]) -> str:
    text = f"{row[0]}, {row[2]}, the flood {row[1]}"
    return text.replace("`", "").replace("as init writes them", "lanes")


def _last(cell: str) -> float:
    """Return the last number of a cell, its p99."""
    return float(cell.split(",")[-1].strip() or 0)


def _courses(page: str) -> list[Line]:
    """Return the medians of each way after the campaign turned slow."""
    told = _part(page, "slow").partition("from the first slow batch on:")[2]
    lines = []
    for way, numbers in re.findall(r"([^;:]+): ((?:[\d.]+, )*[\d.]+)[;.]", told):
        points = [(STEP * place, float(number)) for place, number in enumerate(numbers.split(", "))]
        lines.append(Line(way.strip().replace("`", "").removesuffix(", batches as shipped"), points))
    return lines
