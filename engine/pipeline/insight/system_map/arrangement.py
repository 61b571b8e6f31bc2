"""Arrange the picture: which boxes stand where, what each says, and which arrows connect them. Pure.

Work flows from left to right: who makes work, the lanes in which it waits, the fleets that do it, and the stores and
channels that these use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from engine.domain.system_view import (
    ChannelNode,
    FleetNode,
    LaneNode,
    Level,
    ProducerNode,
    StoreNode,
    SystemView,
    Times,
    Verdict,
)

COLUMNS: Final = ("what makes work", "lanes", "fleets", "stores and channels")
WIDTHS: Final = (165, 315, 230, 300)
"""Widths of the columns (px); with the gaps the drawing is 1,280 wide."""
MARGIN: Final = 16
GAP: Final = 79
"""Space between two columns, for the arrows and for what they say."""
TOP: Final = 84
"""Where the first box begins: below the headline and the columns' names."""
HEAD: Final = 26
LINE: Final = 15
PAD: Final = 8
BETWEEN: Final = 12
"""Space between two boxes of a column."""
LETTER: Final = 6.3
"""Width of a letter (px), on average, by which a line is cut."""
WIDTH: Final = 2 * MARGIN + sum(WIDTHS) + (len(WIDTHS) - 1) * GAP


@dataclass(frozen=True, slots=True)
class Box:
    """A part of the installation: `kind` and `name` identify it, `lines` are what it says below its title."""

    kind: str
    name: str
    verdict: Verdict
    lines: tuple[str, ...]
    column: int
    x: int
    y: int
    height: int

    @property
    def id(self) -> str:
        """Return the name of the box in arrows, e.g. `lane/fast`."""
        return f"{self.kind}/{self.name}"

    @property
    def width(self) -> int:
        """Return the width of its column."""
        return WIDTHS[self.column]


@dataclass(frozen=True, slots=True)
class Arrow:
    """An arrow between two boxes, with what passes a second in words (empty: nothing)."""

    source: Box
    target: Box
    rate: float
    words: str


@dataclass(frozen=True, slots=True)
class Arrangement:
    """All boxes and arrows, and the size of the drawing (px)."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    width: int
    height: int


def arranged(view: SystemView) -> Arrangement:
    """Return the arrangement of a picture."""
    columns = (
        [("producer", one.name, one.verdict, producer_lines(one)) for one in view.producers],
        [("lane", one.name, one.verdict, lane_lines(one)) for one in view.lanes],
        [("fleet", one.name, one.verdict, fleet_lines(one)) for one in view.fleets],
        [
            *(("store", one.name, one.verdict, store_lines(one)) for one in view.stores),
            *(("channel", one.name, one.verdict, channel_lines(one)) for one in view.channels),
        ],
    )
    boxes: list[Box] = []
    x, bottom = MARGIN, TOP
    for number, parts in enumerate(columns):
        y = TOP
        for kind, name, verdict, lines in parts:
            told = tuple(line for line in (*lines, _why(kind, verdict)) if line)
            height = HEAD + LINE * len(told) + PAD
            boxes.append(Box(kind, name, verdict, told, number, x, y, height))
            y += height + BETWEEN
        x += WIDTHS[number] + GAP
        bottom = max(bottom, y)
    by_id = {box.id: box for box in boxes}
    arrows = [
        Arrow(by_id[edge.source], by_id[edge.target], edge.rate, _passing(edge.rate, edge.unit))
        for edge in view.edges
        if edge.source in by_id and edge.target in by_id
    ]
    near = tuple(arrow for arrow in arrows if arrow.target.column == arrow.source.column + 1)
    return Arrangement(tuple(boxes), near, WIDTH, bottom - BETWEEN + MARGIN)


def _why(kind: str, verdict: Verdict) -> str:
    """Return the reason of a verdict; none for a lane or a producer that is well, whose numbers say it all."""
    well = verdict.level in (Level.IDLE, Level.FINE)
    return "" if well and kind in ("lane", "producer") else verdict.why


def producer_lines(producer: ProducerNode) -> list[str]:
    """Return what the box of a producer says."""
    lines = []
    if producer.lag is not None:
        lines.append(f"{seconds(producer.lag)} behind" if producer.lag else "up to date")
    lines += [f"{number(producer.rate)} changes/s"] if producer.rate else []
    calls = sum(
        rate
        for process in producer.processes
        for name, rate in process.report.rates.items()
        if name.startswith("calls.")
    )
    return lines + ([f"{number(calls)} calls/s"] if calls else [])


def lane_lines(lane: LaneNode) -> list[str]:
    """Return what the box of a lane says."""
    waiting = []
    if lane.slices is not None and (lane.kind != "internal" or lane.slices or lane.held):
        waiting.append(f"{lane.slices:,} slices wait, {lane.held or 0:,} in work")
    if lane.ready is not None:
        more = f", {lane.delayed:,} delayed" if lane.delayed else ""
        waiting.append(f"{lane.ready:,} messages ready{more}" + (f", {lane.dead:,} dead" if lane.dead else ""))
    lines = ["; ".join(waiting)] if waiting else []
    if lane.oldest is not None:
        lines.append(f"the oldest has waited {seconds(lane.oldest)}")
    lines += _times("waits", lane.waits)
    return lines + ([f"{number(lane.rate)} slices/s"] if lane.rate else [])


def fleet_lines(fleet: FleetNode) -> list[str]:
    """Return what the box of a fleet says."""
    alive = len(fleet.processes)
    lines = [
        f"{alive} of {fleet.wanted} processes of {fleet.threads} thread{'s' if fleet.threads > 1 else ''}",
        f"serves {', '.join(fleet.lanes)}",
    ]
    users = _rate_of(fleet, "users.")
    sent = _rate_of(fleet, "deliveries.")
    rates = [f"{number(users)} users/s"] if users else []
    rates += [f"{number(sent)} messages/s"] if sent else []
    memory = sum(process.report.memory for process in fleet.processes)
    return lines + ([", ".join(rates)] if rates else []) + ([f"{memory / 2**20:,.0f} MiB"] if memory else [])


def store_lines(store: StoreNode) -> list[str]:
    """Return what the box of a store says."""
    lines = [store.address] if store.address else []
    measured = [] if store.ping is None else [f"round trip {seconds(store.ping)}"]
    measured += [f"{number(store.rate)} calls/s"] if store.rate else []
    return lines + ([", ".join(measured)] if measured else []) + _times("calls", store.calls)


def channel_lines(channel: ChannelNode) -> list[str]:
    """Return what the box of a channel says."""
    rates = [f"{number(rate)} {outcome}/s" for outcome, rate in channel.rates.items() if rate]
    limit = [] if channel.limit is None else [f"at most {number(channel.limit)}/s"]
    return [channel.transport, *([", ".join(rates)] if rates else []), *limit]


def _times(what: str, times: Times) -> list[str]:
    """Return two lines: the quantiles, and the worst case with its campaign."""
    if times.p50 is None or times.p95 is None or times.p99 is None or times.worst is None:
        return []
    whose = f" ({times.worst_campaign})" if times.worst_campaign else ""
    quantiles = " / ".join(seconds(one) for one in (times.p50, times.p95, times.p99))
    return [f"{what} p50/95/99: {quantiles}", f"worst: {seconds(times.worst)}{whose}"]


def _rate_of(fleet: FleetNode, prefix: str) -> float:
    rates: Iterable[Mapping[str, float]] = (process.report.rates for process in fleet.processes)
    return sum(rate for one in rates for name, rate in one.items() if name.startswith(prefix))


def _passing(rate: float, unit: str) -> str:
    return f"{number(rate)} {_SHORT.get(unit, unit)}/s" if rate else ""


_SHORT: Final = {"deliveries": "sent"}


def number(value: float) -> str:
    """Return a number with the digits that matter: `0.25`, `3.8`, `12`, `1,240`."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def seconds(value: float) -> str:
    """Return a time as people read it: `0.8 ms`, `45 ms`, `3.2 s`, `4m10s`."""
    if value < 0.01:
        return f"{value * 1e3:.1f} ms"
    if value < 1:
        return f"{value * 1e3:.0f} ms"
    if value < 100:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


def cut(text: str, width: float) -> str:
    """Cut a line to about `width` px, with an ellipsis."""
    most = int(width / LETTER)
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


WORDS: Final = {
    Level.IDLE: "idle",
    Level.FINE: "fine",
    Level.STRAINED: "strained",
    Level.FAILING: "failing",
    Level.UNKNOWN: "not known",
}
"""How a level is called wherever people read it."""
