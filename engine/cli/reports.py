"""How plans and reports are shown, to people and to programs."""

from __future__ import annotations

from typing import Any

import typer

from engine.cli.opening import show_table
from engine.clock import format_duration, format_instant
from engine.domain.campaign import CampaignRecord
from engine.pipeline.outlook import Plan, Report


def plan_rows(planned: Plan) -> list[tuple[object, ...]]:
    """A plan as rows for people."""
    share = f" ({planned.audience / planned.users:.1%})" if planned.users else ""
    return [
        ("as of", format_instant(planned.as_of)),
        ("audience", f"{planned.audience:,} of {planned.users:,} users{share}, counted {planned.counted}"),
        ("access path", planned.path),
        ("cost", f"{planned.cost}: " + ("reads events" if planned.reads_events else "reads no events")),
        ("profile", planned.profile),
        ("lane", f"{planned.lane}, then {planned.deliver_lane}"),
        ("slices", f"{planned.slices}, in batches of {planned.batch:,}"),
        ("inactivity", format_duration(planned.inactivity)),
        ("holdout", f"{planned.holdout:.1%}"),
    ]


def plan_document(record: CampaignRecord, planned: Plan) -> dict[str, Any]:
    """A plan as one document."""
    return {
        "campaign": record.name,
        "workspace": record.workspace,
        "as_of": format_instant(planned.as_of),
        "users": planned.users,
        "audience": planned.audience,
        "counted": planned.counted,
        "path": planned.path,
        "reads_events": planned.reads_events,
        "cost": planned.cost,
        "profile": planned.profile,
        "lane": planned.lane,
        "deliver_lane": planned.deliver_lane,
        "slices": planned.slices,
        "batch": planned.batch,
        "holdout": planned.holdout,
    }


def report_document(told: Report) -> dict[str, Any]:
    """A report as one document."""
    counts = told.counts
    return {
        "campaign": told.record.name,
        "workspace": told.record.workspace,
        "state": told.record.state.value,
        "stuck": told.record.stuck,
        "revision": told.record.revision,
        "adds_up": told.adds_up,
        "entered": counts.entered,
        "active": counts.active,
        "exited": dict(counts.exited),
        "holdout": counts.holdout,
        "converted": counts.converted,
        "converted_holdout": counts.converted_holdout,
        "messages": {name: {"decided": one.decided, **one.states} for name, one in counts.messages.items()},
        "runs": [
            {"run": raw["_id"], "kind": raw["kind"], "as_of": format_instant(raw["as_of"]), "state": raw["state"]}
            for raw in told.runs
        ],
    }


def show_report(told: Report) -> None:
    """A report for people."""
    record, counts = told.record, told.counts
    typer.echo(
        f"{record.workspace}/{record.name}: {record.state}" + (f", stuck: {record.stuck}" if record.stuck else "")
    )
    exits = [(f"exited({reason})", f"{count:,}") for reason, count in sorted(counts.exited.items())]
    rows: list[tuple[object, ...]] = [("entered", f"{counts.entered:,}"), ("active", f"{counts.active:,}"), *exits]
    rows += [("in the holdout", f"{counts.holdout:,}"), ("converted", f"{counts.converted:,}")]
    show_table("stays", ("", ""), rows)
    for name, one in counts.messages.items():
        states = ", ".join(f"{state} {count:,}" for state, count in sorted(one.states.items()))
        typer.echo(f"{name}: decided {one.decided:,} = {states}")
    typer.echo("the counts add up" if told.adds_up else "THE COUNTS DO NOT ADD UP")
