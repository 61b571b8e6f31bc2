"""Draw the picture as SVG: light and dark, state by word and shape besides colour, every box a link if links are given.

With `style` the drawing stands for itself; without, the page that holds it brings `STYLE` (a strict
Content-Security-Policy allows no style inside a drawing).
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from math import cos, log10, pi, sin
from typing import Final

from engine.clock import format_instant
from engine.domain.system_view import Level, SystemView
from engine.pipeline.insight.system_map.arrangement import (
    COLUMNS,
    GAP,
    HEAD,
    LINE,
    MARGIN,
    PAD,
    TOP,
    WIDTHS,
    WORDS,
    Arrow,
    Box,
    arranged,
    cut,
)

Links = Callable[[str, str], str | None]
"""Returns where a box leads, by its kind and its name; None for nowhere."""

STYLE: Final = """
.map{font:12px/1.3 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;color-scheme:light dark}
.map .ground{fill:#fff}.map text{fill:#1b1f24}.map .small{fill:#4b5563}.map .name{font-weight:600;font-size:13px}
.map .headline{font-size:15px;font-weight:600}.map .word{font-size:11px;font-weight:600}
.map .box{fill:#f8fafc;stroke:#94a3b8;stroke-width:1}.map .arrow{fill:none;stroke:#94a3b8;opacity:.75}
.map .live{stroke:#2563eb;opacity:.9}.map .passing{font-size:11px;fill:#1d4ed8;paint-order:stroke;stroke:#fff;stroke-width:3px}
.map .sign{stroke-width:1.5;fill:none;stroke:#64748b}.map a:focus-visible .box{stroke:#1d4ed8;stroke-width:3}
.map .fine .sign{fill:#15803d;stroke:#15803d}.map .fine .word{fill:#166534}
.map .strained .sign{fill:#b45309;stroke:#b45309}.map .strained .word{fill:#92400e}.map .strained .box{stroke:#b45309;stroke-width:2}
.map .failing .sign{fill:#b91c1c;stroke:#b91c1c}.map .failing .word{fill:#b91c1c}.map .failing .box{fill:#fef2f2;stroke:#b91c1c;stroke-width:2.5}
.map .unknown .sign{stroke-dasharray:2 2}.map .unknown .box{stroke-dasharray:5 4}.map .idle .word,.map .unknown .word{fill:#4b5563}
@media (prefers-color-scheme:dark){.map .ground{fill:#0f1419}.map text{fill:#e6e9ee}.map .small{fill:#b3bcc9}
.map .box{fill:#1a212b;stroke:#64748b}.map .arrow{stroke:#64748b}.map .live{stroke:#7aa7ff}
.map .passing{fill:#a9c4ff;stroke:#0f1419}.map .fine .sign{fill:#4ade80;stroke:#4ade80}.map .fine .word{fill:#86efac}
.map .strained .sign{fill:#fbbf24;stroke:#fbbf24}.map .strained .word{fill:#fcd34d}.map .strained .box{stroke:#fbbf24}
.map .failing .sign{fill:#f87171;stroke:#f87171}.map .failing .word{fill:#fca5a5}.map .failing .box{fill:#3a1618;stroke:#f87171}
.map .idle .word,.map .unknown .word{fill:#b3bcc9}}
"""  # noqa: E501 - CSS, a rule a line
"""Colours and fonts: every text has a contrast of at least 4.5 to 1 on its ground, light and dark."""

TITLE: Final = "The installation"
_BASE: Final = 13
"""Height of a letter above its baseline, and a little."""


def svg(view: SystemView, links: Links | None = None, *, style: bool = True) -> str:
    """Return the drawing; `links` make its boxes links."""
    drawing = arranged(view)
    size = f'viewBox="0 0 {drawing.width} {drawing.height}" width="{drawing.width}" height="{drawing.height}"'
    named = 'role="group" aria-labelledby="map-title map-desc"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="map" {size} {named}>',
        f'<title id="map-title">{TITLE}</title>',
        f'<desc id="map-desc">{escape(_description(view))}</desc>',
        *([f"<style>{STYLE}</style>"] if style else []),
        f'<rect class="ground" width="{drawing.width}" height="{drawing.height}"/>',
        *_headline(view, drawing.width),
        '<g aria-hidden="true">',
        *(_arrow(arrow) for arrow in sorted(drawing.arrows, key=lambda arrow: arrow.rate)),
        "</g>",
        *(_box(box, None if links is None else links(box.kind, box.name)) for box in drawing.boxes),
        '<g aria-hidden="true">',
        *_labels(drawing.arrows),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _description(view: SystemView) -> str:
    """Return in words what the drawing shows, for those who do not see it."""
    return f"{WORDS[view.verdict.level]}: {view.verdict.why}. Work flows from left to right: {', '.join(COLUMNS)}."


def _headline(view: SystemView, width: int) -> list[str]:
    told = f"{WORDS[view.verdict.level]}: {view.verdict.why}"
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(view.campaigns.items()))
    facts = [f"policies {view.policy}"] if view.policy else []
    facts += [f"campaigns: {states}"] if states else []
    facts += [f"as of {format_instant(view.at)[:19].replace('T', ' ')} UTC"]
    sign = _sign(view.verdict.level, MARGIN + 8, 22)
    says = f'<text class="headline" x="{MARGIN + 24}" y="27">{escape(cut(told, width - 120))}</text>'
    parts = [
        f'<g class="{view.verdict.level.value}">{sign}{says}</g>',
        f'<text class="small" x="{MARGIN + 24}" y="46">{escape(cut("; ".join(facts), width - 60))}</text>',
    ]
    x = MARGIN
    for name, column in zip(COLUMNS, WIDTHS, strict=True):
        parts.append(f'<text class="small" x="{x}" y="{TOP - 10}">{name}</text>')
        x += column + GAP
    return parts


def _box(box: Box, link: str | None) -> str:
    level = box.verdict.level
    says = f"{box.kind} {box.name}: {WORDS[level]}. " + ". ".join(box.lines)
    room = box.width - 2 * PAD
    word = WORDS[level]
    parts = [
        f"<title>{escape(says)}{escape('. ' + box.verdict.remedy if box.verdict.remedy else '')}</title>",
        f'<rect class="box" x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="6"/>',
        _sign(level, box.x + PAD + 6, box.y + HEAD / 2),
        f'<text class="name" x="{box.x + PAD + 18}" y="{box.y + 18}">{escape(cut(box.name, room - 90))}</text>',
        f'<text class="word" x="{box.x + box.width - PAD}" y="{box.y + 17}" text-anchor="end">{word}</text>',
    ]
    for number, line in enumerate(box.lines):
        y = box.y + HEAD + _BASE - 3 + number * LINE
        parts.append(f'<text class="small" x="{box.x + PAD}" y="{y}">{escape(cut(line, room))}</text>')
    inside = "".join(parts)
    if link is not None:
        inside = f'<a href="{escape(link, quote=True)}" aria-label="{escape(says, quote=True)}">{inside}</a>'
    return f'<g class="{level.value}" data-node="{escape(box.id, quote=True)}">{inside}</g>'


def _sign(level: Level, x: float, y: float) -> str:
    """Return the shape of a level: a ring, a disc, a triangle, an octagon, or a dashed square."""
    match level:
        case Level.IDLE:
            return f'<circle class="sign" cx="{x:g}" cy="{y:g}" r="5"/>'
        case Level.FINE:
            return f'<circle class="sign" cx="{x:g}" cy="{y:g}" r="5"/>'
        case Level.STRAINED:
            return f'<polygon class="sign" points="{x:g},{y - 6:g} {x + 6:g},{y + 5:g} {x - 6:g},{y + 5:g}"/>'
        case Level.FAILING:
            corners = ((x + 6.5 * cos(pi / 8 + n * pi / 4), y + 6.5 * sin(pi / 8 + n * pi / 4)) for n in range(8))
            return f'<polygon class="sign" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in corners)}"/>'
        case Level.UNKNOWN:
            return f'<rect class="sign" x="{x - 5:g}" y="{y - 5:g}" width="10" height="10"/>'


def _ends(arrow: Arrow) -> tuple[float, float, float, float]:
    source, target = arrow.source, arrow.target
    return source.x + source.width, source.y + source.height / 2, target.x, target.y + target.height / 2


def _arrow(arrow: Arrow) -> str:
    x1, y1, x2, y2 = _ends(arrow)
    bend = max(20.0, (x2 - x1) / 2)
    width = 1 + min(4.0, log10(1 + arrow.rate)) if arrow.rate else 1
    live = " live" if arrow.rate else ""
    path = f"M{x1:g},{y1:g} C{x1 + bend:g},{y1:g} {x2 - bend:g},{y2:g} {x2:g},{y2:g}"
    return f'<path class="arrow{live}" d="{path}" stroke-width="{width:.1f}"/>'


def _labels(arrows: tuple[Arrow, ...]) -> list[str]:
    """Return what passes on each arrow: at its source, or at its target where one source has many arrows."""
    taken: dict[str, int] = {}
    labels = []
    for arrow in sorted(arrows, key=lambda arrow: -arrow.rate):
        if not arrow.words:
            continue
        x1, y1, x2, y2 = _ends(arrow)
        begins = arrow.source.kind != "producer"
        end = arrow.source.id if begins else arrow.target.id
        place = taken[end] = taken.get(end, -1) + 1
        x, y, anchor = (x1 + 3, y1, "start") if begins else (x2 - 3, y2, "end")
        at = f'x="{x:g}" y="{y - 5 + (18 + 12 * (place - 1) if place else 0):g}"'
        labels.append(f'<text class="passing" {at} text-anchor="{anchor}">{escape(arrow.words)}</text>')
    return labels
