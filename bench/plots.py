"""Charts as SVG, drawn from measurements; a few lines on two axes need no library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from pathlib import Path
from typing import Final

WIDTH: Final = 720
HEIGHT: Final = 360
LEFT: Final = 80
RIGHT: Final = 170
TOP: Final = 46
BOTTOM: Final = 54
_FONT: Final = 'font-family="sans-serif" font-size="12"'
COLOURS: Final = ("#c0392b", "#1f6fb2", "#2e8b57", "#8e44ad")


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its name and its points as (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its title, and whether it is logarithmic."""

    title: str
    logarithmic: bool = False


def chart(path: Path, title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> None:
    """Write a chart of some lines."""
    xs = [point[0] for line in lines for point in line.points]
    ys = [point[1] for line in lines for point in line.points]
    across = _Scale(x, min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up = _Scale(y, min(ys) if y.logarithmic else 0.0, max(ys), HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {_FONT}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="24" font-size="15" fill="#222">{title}</text>',
    ]
    for value in across.ticks():
        at = across.at(value)
        parts.append(f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#e4e4e4"/>')
        parts.append(
            f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle" fill="#555">{_short(value)}</text>'
        )
    for value in up.ticks():
        at = up.at(value)
        parts.append(f'<line x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end" fill="#555">{_short(value)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle" fill="#222">{x.title}</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 8}" fill="#222">{y.title}</text>')
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{across.at(a):.1f},{up.at(b):.1f}" for a, b in line.points)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{across.at(a):.1f}" cy="{up.at(b):.1f}" r="2.5" fill="{colour}"/>' for a, b in line.points
        ]
        end = HEIGHT - BOTTOM - 18 * (len(lines) - number)
        parts.append(f'<rect x="{WIDTH - RIGHT + 12}" y="{end - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 28}" y="{end}" fill="#222">{line.name}</text>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Bars:
    """One row of bars: what it is of, and a value for each name of the legend."""

    name: str
    values: Sequence[float]


def bars(path: Path, title: str, axis: Axis, legend: Sequence[str], rows: Sequence[Bars]) -> None:
    """Write a chart of horizontal bars, `len(legend)` to a row, each with its value beside it."""
    left, thick, gap = 250, 15, 14
    high = TOP + len(rows) * (thick * len(legend) + gap) + BOTTOM
    values = [value for row in rows for value in row.values]
    low = 10 ** floor(log10(min(values))) if axis.logarithmic else 0.0
    scale = _Scale(axis, low, max(values), left, WIDTH - 90)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {high}" {_FONT}>',
        f'<rect width="{WIDTH}" height="{high}" fill="#ffffff"/>',
        f'<text x="20" y="24" font-size="15" fill="#222">{title}</text>',
    ]
    y = TOP
    for row in rows:
        middle = y + thick * len(legend) / 2 + 4
        parts.append(f'<text x="{left - 10}" y="{middle:.1f}" text-anchor="end" fill="#222">{row.name}</text>')
        for number, value in enumerate(row.values):
            end = scale.at(value)
            colour = COLOURS[number % len(COLOURS)]
            place = f'x="{left}" y="{y}" width="{max(1.0, end - left):.1f}" height="{thick - 2}"'
            parts.append(f'<rect {place} fill="{colour}"/>')
            parts.append(f'<text x="{end + 6:.1f}" y="{y + 11}" fill="#222">{_told(value)}</text>')
            y += thick
        y += gap
    x = left
    for number, name in enumerate(legend):
        parts.append(f'<rect x="{x}" y="{high - 36}" width="10" height="10" fill="{COLOURS[number]}"/>')
        parts.append(f'<text x="{x + 16}" y="{high - 27}" fill="#222">{name}</text>')
        x += 30 + 7 * len(name)
    parts.append(f'<text x="{left}" y="{high - 10}" fill="#555">{axis.title}</text>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _told(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class _Scale:
    """Maps values to positions on the page."""

    def __init__(self, axis: Axis, low: float, high: float, first: float, last: float) -> None:
        self._log = axis.logarithmic
        self._low, self._high = low, max(high, low * 1.01 if low else 1.0)
        self._first, self._last = first, last

    def at(self, value: float) -> float:
        """Return the position of a value."""
        if self._log:
            share = (log10(max(value, 1e-12)) - log10(self._low)) / (log10(self._high) - log10(self._low))
        else:
            share = (value - self._low) / (self._high - self._low)
        return self._first + share * (self._last - self._first)

    def ticks(self) -> list[float]:
        """Return round values along the axis."""
        if self._log:
            ticks = [10.0**power for power in range(floor(log10(self._low)), floor(log10(self._high)) + 2)]
            return [value for value in ticks if self._low <= value <= self._high] or [self._low, self._high]
        step = 10 ** floor(log10((self._high - self._low) or 1))
        step = next(size for size in (step / 5, step / 2, step, step * 2) if (self._high - self._low) / size <= 7)
        first = floor(self._low / step) * step
        return [value for n in range(12) if self._low <= (value := first + n * step) <= self._high]


def _short(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:.3g}"
