"""Formats plans and reports, for people and for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import typer

from engine.cli.context import show_table
from engine.clock import format_duration, format_instant
from engine.domain.keys import user_id_of
from engine.domain.lifecycle import RunState

if TYPE_CHECKING:
    from engine.decisions.access_path_cost import Capacity, Estimate
    from engine.domain.campaign import CampaignRecord
    from engine.domain.counts import Arm, CampaignCounts
    from engine.domain.work import RunSummary
    from engine.pipeline.insight.campaign_report import Conversions, Report
    from engine.pipeline.insight.plan_and_report import Plan


def plan_rows(planned: Plan) -> list[tuple[object, ...]]:
    """Return a plan as rows for people."""
    about = "about " if planned.users.estimated else ""
    share = f" ({about}{planned.share:.1%})" if planned.share is not None else ""
    return [
        ("as of", format_instant(planned.as_of)),
        ("audience", f"{planned.audience:,} of {about}{planned.users.users:,} users{share}, counted {planned.counted}"),
        ("access path", f"{planned.chosen.path.value}: {planned.chosen.why}"),
        ("cost", f"{planned.cost}: " + ("reads events" if planned.reads_events else "reads no events")),
        ("profile", planned.profile),
        ("lane", f"{planned.lane}, then {planned.deliver_lane}"),
        ("slices", f"{planned.slices}, in batches of {planned.batch:,}"),
        ("inactivity", format_duration(planned.inactivity)),
        ("holdout", f"{planned.holdout:.1%}"),
    ]


def plan_document(record: CampaignRecord, planned: Plan) -> dict[str, Any]:
    """Return a plan as one document."""
    return {
        "campaign": record.name,
        "workspace": record.workspace,
        "as_of": format_instant(planned.as_of),
        "users": planned.users.users,
        "users_estimated": planned.users.estimated,
        "audience": planned.audience,
        "audience_estimated": False,
        "share": planned.share,
        "counted": planned.counted,
        "path": planned.chosen.path.value,
        "why": planned.chosen.why,
        "paths": [
            {
                "path": one.path.value,
                "possible": one.possible,
                **({"reason": one.reason} if one.reason else {}),
                **(_estimate(one) if one.possible else {}),
            }
            for one in planned.chosen.others
        ],
        "reads_events": planned.reads_events,
        "cost": planned.cost,
        "profile": planned.profile,
        "lane": planned.lane,
        "deliver_lane": planned.deliver_lane,
        "slices": planned.slices,
        "batch": planned.batch,
        "holdout": planned.holdout,
    }


def _estimate(one: Estimate) -> dict[str, Any]:
    """Return the estimated cost of an access path; none of its numbers is counted."""
    return {"reads": one.users, "seconds": one.seconds, "operations": one.operations, "estimated": True}


def path_rows(planned: Plan) -> list[tuple[object, ...]]:
    """Return each access path with its estimate, or the reason why it cannot be used."""
    return [
        (
            f"{'> ' if one.path is planned.chosen.path else '  '}{one.path.value}",
            f"about {one.users:,}" if one.possible else "",
            f"about {one.seconds:.2f} s" if one.possible else "",
            f"about {one.operations:,}" if one.possible else "",
            one.reason,
        )
        for one in planned.chosen.others
    ]


def capacity_document(one: Capacity) -> dict[str, Any]:
    """Return the capacity that one kind of work needs, as a document."""
    return {
        "workers": one.workers,
        "there_are": one.there_are,
        "seconds": one.with_those.total_seconds(),
        "estimated": True,
    }


def capacity_rows(deciding: Capacity, sending: Capacity) -> list[tuple[object, ...]]:
    """Return the needed workers, and the duration with the existing ones."""
    return [
        (
            what,
            f"about {one.workers}",
            one.there_are,
            f"about {format_duration(timedelta(seconds=round(one.with_those.total_seconds()))) or '0s'}",
        )
        for what, one in (("deciding", deciding), ("sending the first message", sending))
    ]


def report_document(told: Report, user_shown: Callable[[str], str] = str) -> dict[str, Any]:
    """Return a report as one document; `user_shown` turns a user id into its printable form."""
    counts = told.counts
    return {
        "campaign": told.record.name,
        "workspace": told.record.workspace,
        "state": told.record.state.value,
        **standing_document(told.record),
        "revision": told.record.revision,
        "adds_up": told.adds_up,
        "entered": counts.entered,
        "active": counts.active,
        "exited": dict(counts.exited),
        "holdout": counts.holdout,
        "converted": counts.converted,
        "converted_holdout": counts.converted_holdout,
        "conversions": None if told.conversions is None else _conversions_document(told.conversions, counts),
        "messages": {
            one.name: {"decided": one.counts.decided, **one.counts.states, **({"note": one.note} if one.note else {})}
            for one in told.messages
            if one.counts.decided
        },
        "failures": [
            {
                "reason": one.reason,
                "count": one.count,
                "messages": list(one.messages),
                "example": {"user": user_shown(user_id_of(one.example)), "message": one.example_message},
            }
            for one in told.failures
        ],
        "runs": [
            {
                "run": run.id,
                "kind": run.kind.value,
                "as_of": format_instant(run.as_of),
                "state": run.state.value,
                **({"plan": run.plan, "actual": actual(run)} if run.plan else {}),
            }
            for run in told.runs
        ],
    }


def _conversions_document(told: Conversions, counts: CampaignCounts) -> dict[str, Any]:
    """Return the end of counting conversions, and the two arms."""

    def arm(one: Arm) -> dict[str, Any]:
        return {"entered": one.entered, "converted": one.converted, "rate": one.rate}

    return {
        "within": None if told.within is None else format_duration(told.within),
        "until": None if told.until is None else format_instant(told.until),
        "open": told.open,
        "late_until": None if told.late_until is None else format_instant(told.late_until),
        "treated": arm(counts.treated),
        "holdout": arm(counts.held_out),
        "uplift": counts.uplift,
    }


def standing_document(record: CampaignRecord) -> dict[str, Any]:
    """Return why a campaign does not go on, or goes on in its slow lane: each mark with its reason."""
    marks = [
        {"by": by.value, "reason": one.reason, "since": format_instant(one.since)}
        for by, one in record.stuck_by.items()
    ]
    verdict = record.slowness
    slowness = None if verdict is None else {**asdict(verdict), "since": format_instant(verdict.since)}
    return {
        "stuck": record.stuck,
        "stuck_by": marks,
        "paused_reason": record.paused_reason,
        "slowed": record.slowed,
        "slowness": slowness,
    }


def standing_lines(record: CampaignRecord) -> list[str]:
    """Return the same as lines for people; no lines while the campaign goes on."""
    lines = [f"stuck since {format_instant(one.since)}: {one.reason}" for one in record.stuck_by.values()]
    if record.slowness is not None:
        verdict = "in its slow lane" if record.slowed else "back in its own lane"
        lines.append(f"{verdict} since {format_instant(record.slowness.since)}: {record.slowness.text}")
    return lines + ([f"paused: {record.paused_reason}"] if record.paused_reason else [])


def actual(run: RunSummary) -> dict[str, Any]:
    """Return the actual cost of a run, to compare with its estimate.

    It holds the users read, the workers' seconds and the wall-clock seconds.
    """
    results = run.results
    return {
        "reads": results.get("users", 0),
        "matches": results.get("matched", 0),
        "entered": results.get("entered", 0),
        "seconds_reading": round(results.get("read_us", 0) / 1_000_000, 4),
        **({"seconds_wall": run.took.total_seconds()} if run.took is not None else {}),
    }


def run_rows(told: Report) -> list[tuple[object, ...]]:
    """Return the runs that were planned by cost: estimate against actual."""
    rows: list[tuple[object, ...]] = []
    for run in told.runs:
        plan = run.plan
        if "reads" in plan and run.state is RunState.DECIDED:
            took = actual(run)
            rows.append(
                (
                    run.kind.value,
                    format_instant(run.as_of),
                    plan["path"],
                    f"{plan['reads']:,} / {took['reads']:,}",
                    f"{plan['matches']:,} / {took['matches']:,}" if plan.get("matches") is not None else "",
                    f"{plan['seconds']:.2f} s / {took.get('seconds_wall', 0):.2f} s",
                )
            )
    return rows


def show_report(told: Report, user_shown: Callable[[str], str] = str) -> None:
    """Print a report for people; `user_shown` turns a user id into its printable form."""
    record, counts = told.record, told.counts
    typer.echo("\n".join([f"{record.workspace}/{record.name}: {record.state}", *standing_lines(record)]))
    exits = [(f"exited({reason})", f"{count:,}") for reason, count in sorted(counts.exited.items())]
    rows: list[tuple[object, ...]] = [("entered", f"{counts.entered:,}"), ("active", f"{counts.active:,}"), *exits]
    show_table("enrolments", ("", ""), [*rows, ("in the holdout", f"{counts.holdout:,}")])
    if told.conversions is not None:
        _show_conversions(told.conversions, counts)
    planned = run_rows(told)
    if planned:
        show_table("runs: estimated / actual", ("run", "as of", "path", "users read", "matches", "seconds"), planned)
    for line in told.messages:
        states = ", ".join(f"{state} {count:,}" for state, count in sorted(line.counts.states.items()))
        note = f" ({line.note})" if line.note else ""
        typer.echo(f"{line.name}{note}: decided {line.counts.decided:,}" + (f" = {states}" if states else ""))
    if told.failures:
        failed: list[tuple[object, ...]] = [
            (one.reason, f"{one.count:,}", ", ".join(one.messages), user_shown(user_id_of(one.example)))
            for one in told.failures
        ]
        show_table("failed deliveries", ("reason", "count", "messages", "e.g. user"), failed)
    typer.echo("the counts add up" if told.adds_up else "THE COUNTS DO NOT ADD UP")


def _show_conversions(told: Conversions, counts: CampaignCounts) -> None:
    """Print the arms with their rates, and the end of counting."""
    arms = [("with messages", counts.treated), ("in the holdout", counts.held_out)]
    rows: list[tuple[object, ...]] = [
        (name, f"{one.entered:,}", f"{one.converted:,}", "-" if one.rate is None else f"{one.rate:.2%}")
        for name, one in arms
        if one.entered or name == "with messages"
    ]
    show_table("conversions", ("", "entered", "converted", "rate"), rows)
    if counts.uplift is not None:
        typer.echo(f"uplift over the holdout: {counts.uplift * 100:+.2f} percentage points")
    typer.echo(conversions_sentence(told))


def conversions_sentence(told: Conversions) -> str:
    """Return a sentence on how long conversions are counted."""
    if told.within is None:
        return "conversions are counted forever: the goal has no within:"
    if told.until is None:
        return f"conversions are counted for {format_duration(told.within)} after each entry"
    until = format_instant(told.until)
    if told.open:
        return f"conversions counted until {until}" + (
            ", later for users who enter from now on" if told.entering else ""
        )
    late = f"; events from before then are counted until {format_instant(told.late_until)}" if told.late_until else ""
    return f"conversions closed at {until}{late}"
