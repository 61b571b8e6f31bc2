"""Formats plans and reports, for people and for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    from engine.domain.system_view import Late
    from engine.domain.work import RunSummary, WindowCost
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
                "path": estimate.path.value,
                "possible": estimate.possible,
                **({"reason": estimate.reason} if estimate.reason else {}),
                **(_estimate(estimate) if estimate.possible else {}),
            }
            for estimate in planned.chosen.others
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


def _estimate(estimate: Estimate) -> dict[str, Any]:
    """Return the estimated cost of an access path; none of its numbers is counted."""
    return {"reads": estimate.users, "seconds": estimate.seconds, "operations": estimate.operations, "estimated": True}


def path_rows(planned: Plan) -> list[tuple[object, ...]]:
    """Return each access path with its estimate, or the reason why it cannot be used."""
    return [
        (
            f"{'> ' if estimate.path is planned.chosen.path else '  '}{estimate.path.value}",
            f"about {estimate.users:,}" if estimate.possible else "",
            f"about {estimate.seconds:.2f} s" if estimate.possible else "",
            f"about {estimate.operations:,}" if estimate.possible else "",
            estimate.reason,
        )
        for estimate in planned.chosen.others
    ]


def capacity_document(capacity: Capacity) -> dict[str, Any]:
    """Return the capacity that one kind of work needs, as a document."""
    return {
        "workers": capacity.workers,
        "there_are": capacity.there_are,
        "seconds": capacity.duration.total_seconds(),
        "estimated": True,
    }


def capacity_rows(deciding: Capacity, sending: Capacity) -> list[tuple[object, ...]]:
    """Return the needed workers, and the duration with the existing ones."""
    return [
        (
            what,
            f"about {capacity.workers}",
            capacity.there_are,
            f"about {format_duration(timedelta(seconds=round(capacity.duration.total_seconds()))) or '0s'}",
        )
        for what, capacity in (("deciding", deciding), ("sending the first message", sending))
    ]


def report_document(report: Report, user_shown: Callable[[str], str] = str) -> dict[str, Any]:
    """Return a report as one document; `user_shown` turns a user id into its printable form."""
    counts = report.counts
    return {
        "campaign": report.record.name,
        "workspace": report.record.workspace,
        "state": report.record.state.value,
        **standing_document(report.record),
        "revision": report.record.revision,
        "adds_up": report.adds_up,
        "entered": counts.entered,
        "active": counts.active,
        "exited": dict(counts.exited),
        "holdout": counts.holdout,
        "converted": counts.converted,
        "converted_holdout": counts.converted_holdout,
        "conversions": None if report.conversions is None else _conversions_document(report.conversions, counts),
        "messages": {
            message.name: {
                "decided": message.counts.decided,
                **message.counts.states,
                **({"note": message.note} if message.note else {}),
            }
            for message in report.messages
            if message.counts.decided
        },
        "failures": [
            {
                "reason": failure.reason,
                "count": failure.count,
                "messages": list(failure.messages),
                "example": {"user": user_shown(user_id_of(failure.example)), "message": failure.example_message},
            }
            for failure in report.failures
        ],
        "inactivity_windows": windows_document(report.windows),
        "runs": [
            {
                "run": run.id,
                "kind": run.kind.value,
                "as_of": format_instant(run.as_of),
                "state": run.state.value,
                **({"plan": run.plan, "actual": actual(run)} if run.plan else {}),
            }
            for run in report.runs
        ],
    }


def windows_document(windows: Sequence[WindowCost]) -> list[dict[str, Any]]:
    """Return the cost under each inactivity window, the latest last."""
    return [
        {
            "inactivity": format_duration(cost.inactivity),
            "since": format_instant(cost.since),
            "policy": cost.policy,
            "runs": cost.runs,
            "looked_at": cost.evaluated,
            "messages": cost.chosen,
            "looked_at_per_message": cost.each,
        }
        for cost in windows
    ]


def window_rows(windows: Sequence[WindowCost]) -> list[tuple[object, ...]]:
    """Return the same as rows for people."""
    return [
        (
            format_duration(cost.inactivity),
            format_instant(cost.since),
            cost.policy,
            f"{cost.runs:,}",
            f"{cost.evaluated:,}",
            f"{cost.chosen:,}",
            "-" if cost.each is None else f"{cost.each:,.1f}",
        )
        for cost in windows
    ]


def _conversions_document(converted: Conversions, counts: CampaignCounts) -> dict[str, Any]:
    """Return the end of counting conversions, and the two arms."""

    def arm(counted: Arm) -> dict[str, Any]:
        return {"entered": counted.entered, "converted": counted.converted, "rate": counted.rate}

    return {
        "within": None if converted.within is None else format_duration(converted.within),
        "until": None if converted.until is None else format_instant(converted.until),
        "open": converted.open,
        "late_until": None if converted.late_until is None else format_instant(converted.late_until),
        "treated": arm(counts.treated),
        "holdout": arm(counts.held_out),
        "uplift": counts.uplift,
    }


def standing_document(record: CampaignRecord) -> dict[str, Any]:
    """Return why a campaign does not go on, or goes on in its slow lane: each mark with its reason."""
    marks = [
        {"by": by.value, "reason": stuck.reason, "since": format_instant(stuck.since)}
        for by, stuck in record.stuck_by.items()
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
    lines = [f"stuck since {format_instant(stuck.since)}: {stuck.reason}" for stuck in record.stuck_by.values()]
    if record.slowness is not None:
        verdict = "in its slow lane" if record.slowed else "back in its own lane"
        lines.append(f"{verdict} since {format_instant(record.slowness.since)}: {record.slowness.text}")
    return lines + ([f"paused: {record.paused_reason}"] if record.paused_reason else [])


def late_document(late: Sequence[Late]) -> dict[str, Any]:
    """Return whether and why a campaign is late; `late` is null if it is not."""
    shown = [{"by": one.by, "reason": one.reason, "why": one.why, "remedy": one.remedy} for one in late]
    return {"late": shown[0] if shown else None}


def late_lines(late: Sequence[Late]) -> list[str]:
    """Return the same as lines for people."""
    return [f"late: {one.why}" + (f" ({one.remedy})" if one.remedy else "") for one in late]


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


def run_rows(report: Report) -> list[tuple[object, ...]]:
    """Return the runs that were planned by cost: estimate against actual."""
    rows: list[tuple[object, ...]] = []
    for run in report.runs:
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


def show_report(report: Report, user_shown: Callable[[str], str] = str, late: Sequence[Late] = ()) -> None:
    """Print a report for people; `user_shown` turns a user id into its printable form."""
    record, counts = report.record, report.counts
    typer.echo(
        "\n".join([f"{record.workspace}/{record.name}: {record.state}", *standing_lines(record), *late_lines(late)])
    )
    exits = [(f"exited({reason})", f"{count:,}") for reason, count in sorted(counts.exited.items())]
    rows: list[tuple[object, ...]] = [("entered", f"{counts.entered:,}"), ("active", f"{counts.active:,}"), *exits]
    show_table("enrolments", ("", ""), [*rows, ("in the holdout", f"{counts.holdout:,}")])
    if report.conversions is not None:
        _show_conversions(report.conversions, counts)
    planned = run_rows(report)
    if planned:
        show_table("runs: estimated / actual", ("run", "as of", "path", "users read", "matches", "seconds"), planned)
    if report.windows:
        columns = ("window", "since", "policy", "runs", "users evaluated", "messages", "evaluations a message")
        show_table("cost by inactivity window (7 days, without launches)", columns, window_rows(report.windows))
    for line in report.messages:
        states = ", ".join(f"{state} {count:,}" for state, count in sorted(line.counts.states.items()))
        note = f" ({line.note})" if line.note else ""
        typer.echo(f"{line.name}{note}: decided {line.counts.decided:,}" + (f" = {states}" if states else ""))
    if report.failures:
        failed: list[tuple[object, ...]] = [
            (failure.reason, f"{failure.count:,}", ", ".join(failure.messages), user_shown(user_id_of(failure.example)))
            for failure in report.failures
        ]
        show_table("failed deliveries", ("reason", "count", "messages", "e.g. user"), failed)
    wrong = f"THE COUNTS DO NOT ADD UP: {'; '.join(report.faults)}"
    typer.echo("the counts add up" if report.adds_up else wrong)


def _show_conversions(converted: Conversions, counts: CampaignCounts) -> None:
    """Print the arms with their rates, and the end of counting."""
    arms = [("with messages", counts.treated), ("in the holdout", counts.held_out)]
    rows: list[tuple[object, ...]] = [
        (
            name,
            f"{arm_counts.entered:,}",
            f"{arm_counts.converted:,}",
            "-" if arm_counts.rate is None else f"{arm_counts.rate:.2%}",
        )
        for name, arm_counts in arms
        if arm_counts.entered or name == "with messages"
    ]
    show_table("conversions", ("", "entered", "converted", "rate"), rows)
    if counts.uplift is not None:
        typer.echo(f"uplift over the holdout: {counts.uplift * 100:+.2f} percentage points")
    typer.echo(conversions_sentence(converted))


def conversions_sentence(converted: Conversions) -> str:
    """Return a sentence on how long conversions are counted."""
    if converted.within is None:
        return "conversions are counted forever: the goal has no within:"
    if converted.until is None:
        return f"conversions are counted for {format_duration(converted.within)} after each entry"
    until = format_instant(converted.until)
    if converted.open:
        return f"conversions counted until {until}" + (
            ", later for users who enter from now on" if converted.entering else ""
        )
    late = (
        f"; events from before then are counted until {format_instant(converted.late_until)}"
        if converted.late_until
        else ""
    )
    return f"conversions closed at {until}{late}"
