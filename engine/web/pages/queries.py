"""`/queries` and `/queries/QUERY`: the named queries with their times, the worst call, and the index of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from starlette.responses import Response

from engine.clock import Instant
from engine.pipeline.insight.statistics import QueryStatistics
from engine.pipeline.insight.statistics import queries as merged
from engine.query_metrics import Stretch, store_of
from engine.stores.mongo.index_advisor import relied_on
from engine.web.page import Call, Page, Reach, not_there
from engine.web.site import MEASURED

OVER: Final = timedelta(hours=6)
"""How far back the course of one query goes."""
STEP: Final = 300_000
"""Milliseconds of one point of the course."""
_ORDERS: Final[Mapping[str, Callable[[QueryStatistics], float]]] = {
    "time": lambda one: -one.calls * one.median,
    "calls": lambda one: -one.calls,
    "p99": lambda one: -one.p99,
    "worst": lambda one: -one.worst.seconds,
    "name": lambda _: 0.0,
}


@dataclass(frozen=True, slots=True)
class Point:
    """A query within five minutes from `at` on; `figures` is None if it was not called."""

    at: Instant
    figures: QueryStatistics | None


def queries(call: Call) -> Response:
    """Show all named queries of the last hour."""
    reading = call.site.queries.latest()
    if reading.error:
        call.missing.sentences.append("the measurements cannot be read")
    order = call.asked("order", "time")
    found = sorted(reading.value or (), key=lambda one: one.name)
    found.sort(key=_ORDERS.get(order, _ORDERS["time"]))
    return call.show(
        "queries.html",
        title="Named queries",
        command="tidegate stats --within 1h",
        at=reading.at or None,
        queries=found,
        indexes=relied_on(),
        order=order if order in _ORDERS else "time",
        orders=list(_ORDERS),
        hours=MEASURED.total_seconds() / 3_600,
        store_of=store_of,
    )


def query(call: Call) -> Response:
    """Show the course of one named query."""
    name = call.part("query")
    stretches = call.read("MongoDB", "the measurements", lambda: call.app.statistics.measured(OVER))
    points = course(stretches or (), name)
    if stretches is not None and not any(point.figures for point in points) and name not in relied_on():
        raise not_there(f"named query {name}")
    return call.show(
        "query.html",
        title=name,
        command="tidegate stats --within 6h",
        points=points,
        index=relied_on().get(name),
        store=store_of(name),
        line=_polyline([point.figures.p95 if point.figures else 0.0 for point in points]),
    )


def course(stretches: Iterable[Stretch], name: str) -> list[Point]:
    """Return a query's figures for each five minutes from its first call to its last, the oldest first."""
    parts: dict[Instant, list[Stretch]] = {}
    for stretch in stretches:
        if any(figure.name == name for figure in stretch.figures):
            parts.setdefault(stretch.until // STEP * STEP, []).append(stretch)
    if not parts:
        return []
    points = []
    for at in range(min(parts), max(parts) + STEP, STEP):
        figures = {one.name: one for one in merged(parts.get(at, ()))}
        points.append(Point(at, figures.get(name)))
    return points


def _polyline(values: Sequence[float]) -> str:
    """Return the points of a line of 600 by 80 px."""
    highest = max(values, default=0.0) or 1.0
    step = 600 / max(1, len(values) - 1)
    return " ".join(f"{number * step:.1f},{80 - value / highest * 76:.1f}" for number, value in enumerate(values))


PAGES: Final = (
    Page("/queries", queries, Reach.INSTALLATION, every=10.0),
    Page("/queries/{query}", query, Reach.INSTALLATION),
)
