"""The picture as tables, as Mermaid, and as one plain document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from engine.clock import format_instant
from engine.domain.system_view import Level, SystemView, Times, Verdict
from engine.pipeline.insight.system_map.arrangement import (
    WORDS,
    arranged,
    channel_lines,
    fleet_lines,
    number,
    seconds,
    store_lines,
)

SIGNS: Final = {Level.IDLE: "o", Level.FINE: "*", Level.STRAINED: "!", Level.FAILING: "X", Level.UNKNOWN: "?"}
"""A sign of each level that every terminal has."""

Table = tuple[str, tuple[str, ...], Sequence[Sequence[object]]]
"""A title, columns, and rows."""


def headline(view: SystemView) -> str:
    """Return one line: how the installation is, and as of when."""
    at = format_instant(view.at)[:19].replace("T", " ")
    return f"{SIGNS[view.verdict.level]} {WORDS[view.verdict.level]}: {view.verdict.why}  (as of {at} UTC)"


def tables(view: SystemView) -> list[Table]:
    """Return the picture as tables, in the direction in which work flows."""
    return [
        (
            "\nwhat makes work",
            ("", "process", "state", "why"),
            [_named(one.name, one.verdict) for one in view.producers],
        ),
        (
            "\nlanes",
            (
                "",
                "lane",
                "state",
                "wait",
                "in work",
                "oldest",
                "slices/s",
                "wait p50",
                "p95",
                "p99",
                "worst",
                "of",
                "why",
            ),
            [
                (
                    SIGNS[lane.verdict.level],
                    lane.name,
                    WORDS[lane.verdict.level],
                    _known(lane.ready if lane.kind == "internal" and not lane.slices else lane.slices),
                    _known(lane.held),
                    "" if lane.oldest is None else seconds(lane.oldest),
                    number(lane.rate) if lane.rate else "",
                    *_quantiles(lane.waits),
                    lane.verdict.why,
                )
                for lane in view.lanes
            ],
        ),
        (
            "\nfleets",
            ("", "fleet", "state", "processes", "busy", "lanes", "does", "why"),
            [
                (
                    SIGNS[fleet.verdict.level],
                    fleet.name,
                    WORDS[fleet.verdict.level],
                    f"{len(fleet.processes)} of {fleet.wanted}",
                    f"{fleet.busy} of {fleet.threads * max(1, len(fleet.processes))}",
                    ", ".join(fleet.lanes),
                    "; ".join(fleet_lines(fleet)[2:]),
                    fleet.verdict.why,
                )
                for fleet in view.fleets
            ],
        ),
        (
            "\nstores and channels",
            ("", "name", "state", "what is measured", "why"),
            [
                *(
                    (*_named(one.name, one.verdict)[:3], "; ".join(store_lines(one)), one.verdict.why)
                    for one in view.stores
                ),
                *(
                    (*_named(one.name, one.verdict)[:3], "; ".join(channel_lines(one)), one.verdict.why)
                    for one in view.channels
                ),
            ],
        ),
    ]


def mermaid(view: SystemView) -> str:
    """Return the picture as a Mermaid flowchart."""
    drawing = arranged(view)
    ids = {box.id: f"n{number}" for number, box in enumerate(drawing.boxes)}
    lines = ["flowchart LR"]
    for box in drawing.boxes:
        says = "<br/>".join(_plain(line) for line in (f"{box.kind} {box.name}: {WORDS[box.verdict.level]}", *box.lines))
        lines.append(f'  {ids[box.id]}["{says}"]:::{box.verdict.level.value}')
    for arrow in drawing.arrows:
        label = f'|"{_plain(arrow.words)}"|' if arrow.words else ""
        lines.append(f"  {ids[arrow.source.id]} -->{label} {ids[arrow.target.id]}")
    lines += [
        "  classDef fine stroke:#15803d,stroke-width:2px",
        "  classDef idle stroke:#64748b",
        "  classDef strained stroke:#b45309,stroke-width:3px",
        "  classDef failing stroke:#b91c1c,stroke-width:4px,fill:#fef2f2,color:#1b1f24",
        "  classDef unknown stroke:#64748b,stroke-dasharray:5 4",
    ]
    return "\n".join(lines) + "\n"


def document(view: SystemView) -> dict[str, object]:
    """Return the picture as one document of plain values; `at` is ISO 8601."""
    return {**asdict(view), "at": format_instant(view.at)}


def _named(name: str, verdict: Verdict) -> tuple[str, str, str, str]:
    level, why = verdict.level, verdict.why
    return SIGNS[level], name, WORDS[level], why


def _known(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _quantiles(times: Times) -> tuple[str, str, str, str, str]:
    shown = tuple("" if one is None else seconds(one) for one in (times.p50, times.p95, times.p99, times.worst))
    return (shown[0], shown[1], shown[2], shown[3], times.worst_campaign)


def _plain(text: str) -> str:
    """Return text that Mermaid takes for text."""
    safe = text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
    return safe.replace("`", "#96;").replace("\n", " ")
