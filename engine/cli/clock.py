"""`tidegate clock`: the clock's own process, and campaign time."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.context import AsJson, opened, say, show_json, show_table
from engine.cli.helping import Group
from engine.cli.process_commands import run_clock
from engine.clock import format_instant, millis, parse_duration, parse_instant
from engine.errors import EngineError, WrongCall

if TYPE_CHECKING:
    from engine.app.app import App

ASK_EVERY = 0.02
"""Seconds between two checks for pending work: each costs MongoDB some milliseconds."""


TELL_EVERY = 5.0
"""Seconds between two lines that say what `clock advance` waits for."""
ASK_WHY = 1.0
"""Seconds between two checks that the pending work can end at all."""

LASTING = 5.0
"""Seconds of failure after which waiting for a loop is pointless."""

VITAL = frozenset({"feed", "clock"})
"""Loops without which no pending work ends."""


def mount(app: typer.Typer) -> None:
    """Add the group `clock` to `app`."""
    group = typer.Typer(cls=Group, no_args_is_help=True, help="The clock's process, and campaign time.")
    group.command("run", epilog="Example: tidegate clock run")(run_clock)
    group.command("show", epilog="Example: tidegate clock show --json")(show)
    group.command("advance", epilog="Example: tidegate clock advance --to 2017-01-31T23:59:59.999")(advance)
    app.add_typer(group, name="clock")


def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Show campaign time, whether it is set, and the work pending at it."""
    with opened(context) as app:
        now, fixed, what = app.clock.campaign_now(), app.clock.is_set(), app.quiescence.what()
        if as_json:
            show_json({"campaign_time": format_instant(now), "set": fixed, "open": what})
            return
        rows: list[tuple[object, ...]] = [
            ("campaign time", format_instant(now)),
            ("moves", "when it is advanced" if fixed else "with system time"),
            ("open", what or "nothing"),
        ]
        show_table("", ("", ""), rows)


def advance(
    context: typer.Context,
    to: Annotated[str | None, typer.Option("--to", help="A moment, ISO 8601; without a zone it is UTC.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="A duration such as 1d.")] = None,
    wait: Annotated[bool, typer.Option(help="Return once no work is open at the new time.")] = True,
    patience: Annotated[str, typer.Option(help="How long to wait for that.")] = "10m",
) -> None:
    """Set campaign time to a later moment, and wait until no work is pending at it.

    Campaign time then stays there until it is advanced again: for replays and tests.
    """
    if (to is None) == (by is None):
        raise WrongCall("give either --to MOMENT or --by DURATION")
    with opened(context) as app:
        target = _target(app, to, by)
        longest = length_of("--patience", patience).total_seconds()
        advance_to(app, target)
        if wait:
            wait_until_closed(app, longest)
        say(f"campaign time is {format_instant(target)}")


def _target(app: App, to: str | None, by: str | None) -> int:
    if to is not None:
        return moment_of("--to", to)
    return app.clock.campaign_now() + millis(length_of("--by", by or ""))


def moment_of(option: str, text: str) -> int:
    """Parse an option's value as a moment. Raises `WrongCall`."""
    try:
        return parse_instant(text)
    except ValueError as error:
        raise WrongCall(f"{option}: expected a moment such as 2026-12-01T08:00Z, got '{text}'") from error


def length_of(option: str, text: str) -> timedelta:
    """Parse an option's value as a duration. Raises `WrongCall`."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise WrongCall(f"{option}: {error}") from error


def advance_to(app: App, target: int) -> None:
    """Set campaign time, and wake the clock."""
    app.stores.times.advance(target, app.system.system_now())
    app.stores.wakeup.ring()


def wait_until_closed(app: App, longest: float) -> None:
    """Wait until no work is pending.

    Raises `EngineError` after `longest` seconds, naming the pending work. Raises it at once if all pending work belongs
    to stuck campaigns, or if the feed or the clock has been failing for some seconds.
    """
    began = told = time.monotonic()
    reported = began
    while (what := app.quiescence.what()) is not None:
        now = time.monotonic()
        if now - told > TELL_EVERY:
            told = now
            say(f"still open after {now - began:.0f} s: {what}")
        if now - reported > ASK_WHY:
            reported = now
            _refuse_stuck(app, fails_since=now - began)
        if now - began > longest:
            raise EngineError(
                f"still open after {longest:.0f} s: {what}",
                remedy="check with tidegate status that the workers and the clock run",
            )
        time.sleep(ASK_EVERY)


def _refuse_stuck(app: App, fails_since: float) -> None:
    """Raise `EngineError` if waiting is pointless."""
    stuck = app.quiescence.in_vain()
    if stuck is not None:
        remedy = "tidegate campaign report NAME shows since when; fix the cause, and the campaign continues by itself"
        raise EngineError(stuck, remedy=remedy)
    if fails_since > LASTING:
        for failure in app.stores.process_failures.everything():
            lasts = failure.last - failure.since >= LASTING * 1000
            if failure.loop in VITAL and lasts and app.system.system_now() - failure.last < LASTING * 2000:
                since = format_instant(failure.since)
                raise EngineError(
                    f"the {failure.loop} of {failure.process} has failed since {since}: {failure.reason}",
                    remedy="fix what it names; the loop continues by itself",
                )
