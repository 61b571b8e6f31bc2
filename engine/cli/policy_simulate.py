"""`tidegate policy simulate --days`: replays recorded slices, and shows the waits of each lane."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import typer

from engine.cli.context import opened, show_table
from engine.clock import format_instant

if TYPE_CHECKING:
    from engine.pipeline.insight.policy_forecast import Forecast, LaneForecast, LaneWaits
    from engine.policy.policyset import PolicySet

_EMPTY: Final = "-"


def forecast_for(context: typer.Context, today: PolicySet, edited: PolicySet | None, days: int) -> Forecast:
    """Replay the slices of the last `days` under today's and under edited policies."""
    from engine.pipeline.insight.policy_forecast import forecast

    with opened(context) as app:
        return forecast(app.stores.slices, app.stores.campaigns, today, edited, timedelta(days=days))


def as_document(told: Forecast) -> dict[str, object]:
    """Return a forecast as JSON has it: waits in seconds, instants as text."""
    from engine.pipeline.insight.policy_forecast import NOT_MODELLED

    return {
        "first": None if told.first is None else format_instant(told.first),
        "last": None if told.last is None else format_instant(told.last),
        "slices": told.slices,
        "left_out": told.left_out,
        "lanes": [asdict(lane) for lane in told.lanes],
        "not_modelled": NOT_MODELLED,
    }


def show_forecast(told: Forecast, days: int) -> None:
    """Print a forecast as a table, with what it rests on and what it leaves out."""
    from engine.pipeline.insight.policy_forecast import NOT_MODELLED

    left_out = (
        f"; {told.left_out:,} left out: no turns are recorded, or their campaign is gone" if told.left_out else ""
    )
    if told.first is None or told.last is None:
        typer.echo(f"nothing is recorded: no slice with turns ended in the last {days} days{left_out}")
        return
    covered = timedelta(milliseconds=told.last - told.first)
    typer.echo(
        f"replayed {told.slices:,} slices from {format_instant(told.first)} to {format_instant(told.last)} "
        f"({_covered(covered)} of {days} days){left_out}"
    )
    edited = any(lane.edited is not None for lane in told.lanes)
    columns = ["lane", "slices", "waits recorded: p50, p95, p99", "simulated today"]
    columns += [*(["simulated edited"] if edited else []), "threads busy", "clock"]
    show_table("", columns, [_row(lane, edited=edited) for lane in told.lanes])
    typer.echo("Not modelled:")
    for line in NOT_MODELLED:
        typer.echo(f"- {line}")


def _row(lane: LaneForecast, *, edited: bool) -> list[str]:
    sets = [lane.recorded, lane.today, *([lane.edited] if edited else [])]
    slices = next((waits.slices for waits in reversed(sets) if waits is not None), 0)
    busy = [_EMPTY if waits is None or waits.busy is None else f"{waits.busy:.0%}" for waits in sets]
    return [lane.lane, f"{slices:,}", *map(_waits, sets), ", ".join(busy), seconds(lane.reaction)]


def _waits(waits: LaneWaits | None) -> str:
    return _EMPTY if waits is None else ", ".join(map(seconds, (waits.p50, waits.p95, waits.p99)))


def seconds(value: float) -> str:
    """Return a wait in the unit that people read: `48 ms`, `2.31 s`, `14.2 min`."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.3g} s" if value < 120 else f"{value / 60:.3g} min"


def _covered(span: timedelta) -> str:
    days = span / timedelta(days=1)
    return f"{days:.1f}" if days >= 0.1 else f"{span / timedelta(minutes=1):.1f} minutes"
