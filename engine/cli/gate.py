"""`tidegate gate`: how much of MongoDB bulk work may take, what it was judged by, and a person's own setting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.clock import length_of
from engine.cli.context import AsJson, opened, say, show_json, show_table
from engine.cli.helping import Group
from engine.clock import format_instant
from engine.domain.gate import GateState, GateView, Hold, Member, limit_in_force
from engine.errors import WrongCall

if TYPE_CHECKING:
    from engine.policy.models import Gate


def mount(app: typer.Typer) -> None:
    """Add the group `gate` to `app`."""
    group = typer.Typer(cls=Group, no_args_is_help=True, help="How much of MongoDB bulk work may take.")
    group.command("show", epilog="Example: tidegate gate show --json")(show)
    group.command("set", epilog="Example: tidegate gate set --limit 0.5 --for 10m --why 'nightly backup'")(set_gate)
    app.add_typer(group, name="gate")


def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the gate's limit with its reason, what was measured, and which processes share it."""
    from engine.decisions.gate import share
    from engine.pipeline.control.gate_override import gate_view

    with opened(context) as app:
        view, rule = gate_view(app.gate_store), app.policies.gates.get("mongodb")
    state = GateState() if view.state is None else view.state
    limit = None if rule is None and view.override is None else limit_in_force(state, view.override)
    wanted = sum(member.wanted for member in view.members)
    shares = {member.id: share(limit, member.wanted, wanted) for member in view.members}
    if as_json:
        show_json(_document(view, state, limit, rule, shares))
        return
    rows: list[tuple[object, ...]] = [
        ("gate of MongoDB", _sentence(limit)),
        ("why", _why(view, state, rule)),
        ("used now", f"{sum(member.used for member in view.members):.2f} operations at a time"),
        *_measured(view, rule),
    ]
    show_table("", ("", ""), rows)
    members = [
        (one.process, one.id, one.wanted, f"{one.used:.2f}", _share_shown(one, shares[one.id])) for one in view.members
    ]
    if members:
        show_table("", ("process", "id", "threads that want to work", "used", "share"), members)
    else:
        say("no process that does bulk work is alive: its measurements may be old")


def set_gate(
    context: typer.Context,
    limit: Annotated[float | None, typer.Option("--limit", help="Operations at a time; 0.5 is half of one.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Let bulk work pass without a limit.")] = False,
    closed: Annotated[bool, typer.Option("--closed", help="Let no bulk work begin.")] = False,
    automatic: Annotated[bool, typer.Option("--automatic", help="End such a setting now.")] = False,
    lasts: Annotated[str, typer.Option("--for", help="How long it holds.")] = "10m",
    why: Annotated[str, typer.Option("--why", help="The reason, for those who see it.")] = "",
) -> None:
    """Set the gate by hand for a while; every process follows within a second."""
    from engine.pipeline.control.gate_override import override_gate, release_gate

    if sum((limit is not None, open_, closed, automatic)) != 1:
        raise WrongCall("give one of --limit NUMBER, --open, --closed and --automatic")
    length = length_of("--for", lasts)
    hold = Hold.LIMIT if limit is not None else Hold.OPEN if open_ else Hold.CLOSED
    with opened(context) as app:
        if automatic:
            release_gate(app.gate_store)
            say("the gate's automatic limit is in force again")
            return
        try:
            override = override_gate(app.gate_store, hold, length, why, limit)
        except WrongCall as error:  # it names what is wrong by the word of the option
            raise WrongCall(f"--{error}", remedy=error.remedy) from error
    limited = _sentence(limit_in_force(GateState(), override))
    say(f"the gate is set by hand until {format_instant(override.until)}: {limited}")


def _share_shown(member: Member, own: float | None) -> str:
    """Return a process's share for the table; one that has no bulk work takes none."""
    if not member.wanted:
        return "-"
    return "no limit" if own is None else f"{own:.2f}"


def _sentence(limit: float | None) -> str:
    if limit is None:
        return "open: no limit"
    if limit == 0.0:
        return "closed: no bulk work begins"
    return f"limited to {limit:.2f} operations at a time"


def _why(view: GateView, state: GateState, rule: Gate | None) -> str:
    if view.override is not None:
        reason = f": {view.override.why}" if view.override.why else ""
        return f"set by hand until {format_instant(view.override.until)}{reason}"
    if rule is None:
        return "policies/lanes.yaml has no gates.mongodb"
    since = f" (since {format_instant(state.since)})" if state.since else ""
    return f"{state.why}{since}"


def _measured(view: GateView, rule: Gate | None) -> list[tuple[object, ...]]:
    gauge = view.gauge
    probe = "not measured yet"
    if gauge.p95 is not None and gauge.p50 is not None:
        probe = f"p50 {gauge.p50 * 1e3:.3g} ms, p95 {gauge.p95 * 1e3:.3g} ms"
        if gauge.own:
            probe += f" (without the {gauge.own * 1e3:.3g} ms that the clock waited for a processor)"
    lag = "unknown or no secondary" if gauge.lag is None else f"{gauge.lag:.3g} s"
    queue = "unknown" if gauge.queue is None else str(gauge.queue)
    if rule is None:
        return [("probe", probe), ("lag", lag), ("queue", queue)]
    return [
        ("probe", f"{probe}; above p95 {rule.latency.total_seconds() * 1e3:.3g} ms bulk work gives way"),
        ("lag", f"{lag}; above {rule.lag.total_seconds():.3g} s bulk work gives way"),
        ("queue", queue if rule.queue is None else f"{queue}; above {rule.queue} bulk work gives way"),
    ]


def _document(
    view: GateView, state: GateState, limit: float | None, rule: Gate | None, shares: dict[str, float | None]
) -> dict[str, object]:
    held = view.override
    return {
        "limit": limit,
        "why": _why(view, state, rule),
        "since": format_instant(state.since) if state.since else None,
        "held": None if held is None else {"as": held.hold, "until": format_instant(held.until), "why": held.why},
        "p50": view.gauge.p50,
        "p95": view.gauge.p95,
        "lag": view.gauge.lag,
        "queue": view.gauge.queue,
        "rule": None if rule is None else rule.model_dump(mode="json"),
        "members": [
            {"id": m.id, "process": m.process, "wanted": m.wanted, "used": m.used, "share": shares[m.id]}
            for m in view.members
        ],
    }
