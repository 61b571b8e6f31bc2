"""Declares `tidegate run`, `worker`, `feed` and `clock run`.

Their code is in other modules, which import everything.
"""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.context import LogFormat

NoServices = Annotated[bool, typer.Option("--no-services", help="Start no local service.")]
AsDramatiq = Annotated[bool, typer.Option("--dramatiq", help="Run Dramatiq's own command instead.")]


def mount(app: typer.Typer) -> None:
    """Add the commands to `app`; `engine.cli.clock` adds `clock run`."""
    app.command(epilog="Example: tidegate run")(run)
    app.command(epilog="Example: tidegate worker fast")(worker)
    app.command(epilog="Example: tidegate feed")(feed)


def run(context: typer.Context, no_services: NoServices = False, log_format: LogFormat = None) -> None:
    """Run everything in one process: the clock, and every fleet as its own thread pool.

    Only suspects get a child process, because their death must not stop the other lanes. The one process is itself a
    child, so that it is forked again at once if it is killed.
    """
    from engine.cli.run import run as run_all

    run_all(context, no_services=no_services, log_format=log_format or "")


def worker(
    context: typer.Context,
    fleet: Annotated[str, typer.Argument(help="A fleet of policies/lanes.yaml.")],
    as_dramatiq: AsDramatiq = False,
) -> None:
    """Run one fleet: its lanes, processes and threads come from the policies. A process that dies is forked again."""
    from engine.cli.fleet import worker as run_fleet

    run_fleet(context, fleet, as_dramatiq=as_dramatiq)


def feed(context: typer.Context) -> None:
    """Follow the users' changes: refresh the cache, index users, and request re-evaluations.

    A second feed waits for the first.
    """
    from engine.cli.feed import feed as run_feed

    run_feed(context)


def run_clock(context: typer.Context) -> None:
    """Run the clock: it starts due runs, dispatches slices, and frees expired leases. Two may run."""
    from engine.cli.run import run_clock as run_ticks

    run_ticks(context)
