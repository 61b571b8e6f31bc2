"""`tidegate logs`: search the log lines, and ship the log files into the log search."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final

import typer

from engine.cli.context import settings_of
from engine.cli.helping import Group
from engine.clock import Instant, SystemClock, millis, parse_duration, parse_instant
from engine.errors import OperatorError, ServiceUnreachable, WrongCall

if TYPE_CHECKING:
    from engine.settings import Settings
    from engine.stores.search.log_index import LogIndex
    from engine.telemetry.delivery_story import Focus, Line
    from engine.telemetry.log_query import LogQuery

_STOP_WITHIN: Final = 0.8
"""Seconds for the last lines after a stop signal; unshipped lines then wait in their file."""
_GIVES_WAY: Final = 5
"""Niceness of the shipper: lines wait in their files while mails go out."""
_LOOK_AGAIN: Final = 5.0
"""Seconds between two attempts to find a log search."""

Since = Annotated[str, typer.Option(help="How far back: 1h, 7d, or a moment such as 2026-12-01T08:00Z.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="How many of the newest lines to show.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Story = Annotated[bool, typer.Option("--story", help="Every line of the newest delivery found, from split to send.")]
FromFiles = Annotated[bool, typer.Option("--files", help="Read this machine's log files, not the log search.")]
Once = Annotated[bool, typer.Option("--once", help="Ship the existing lines, then exit.")]
Keep = Annotated[str, typer.Option(help="How long lines are kept, e.g. 30d; 'ever' keeps them.")]


def mount(app: typer.Typer) -> None:
    """Add the group `logs` to `app`."""
    group = typer.Typer(
        cls=Group, no_args_is_help=True, help="The audit trail: one line per batch decided and per delivery."
    )
    group.command(epilog="Example: tidegate logs search 'campaign:winback user:hh-1' --story")(search)
    group.command(epilog="Example: tidegate logs ship --once")(ship)
    app.add_typer(group, name="logs")


def search(
    context: typer.Context,
    query: Annotated[str, typer.Argument(help="Terms such as campaign:winback event:delivery.*, and free words.")] = "",
    since: Since = "",
    limit: Limit = 100,
    as_json: AsJson = False,
    tell_story: Story = False,
    from_files: FromFiles = False,
) -> None:
    """Find log lines; without a log search, this machine's files are read."""
    import orjson

    from engine.telemetry.log_query import parse_query
    from engine.telemetry.redaction import Redactor, pseudonym_key

    settings = settings_of(context)
    clock = SystemClock()
    redactor = Redactor(pseudonym_key(settings.log_folder))
    parsed = parse_query(query, redactor, _since(since, clock) if since else None)
    index = None if from_files else _index(settings, clock)
    lines = _matching_lines(index, settings.log_folder, parsed, limit, tell_story=tell_story)
    for hint in _hints(query, lines):
        typer.echo(hint, err=True)
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(lines, option=orjson.OPT_INDENT_2) + b"\n")
        return
    for line in lines:
        typer.echo(_shown(line))
    if not lines:
        typer.echo("nothing found", err=True)


def _hints(query: str, lines: list[Line]) -> list[str]:
    """Return a hint if no delivery of the queried user was found: a user who got nothing leaves no line."""
    from engine.telemetry.log_query import named_in, value_of

    user, campaign = named_in(query)
    if user is None or any(str(value_of(line, "event.action")).startswith("delivery.") for line in lines):
        return []
    command = f"tidegate explain {shlex.quote(campaign or 'CAMPAIGN')} {shlex.quote(user)}"
    return [f"no delivery to {user} is in the log: `{command}` says why there was none, and what happens next"]


def ship(context: typer.Context, once: Once = False, keep: Keep = "30d") -> None:
    """Send the folder's log files into the log search; ends within a second of a stop signal."""
    from actors.log_options import log_options
    from engine.cli.ship_failures import ShipFailures
    from engine.local.processes.prefork import keep_children
    from engine.telemetry.events import emit
    from engine.telemetry.log_shipper import Shipper
    from engine.telemetry.logging import configure

    settings = settings_of(context)
    code = None if once else keep_children(1, settings.engine.stop_timeout, say=lambda text: typer.echo(text, err=True))
    if code is not None:
        raise typer.Exit(code)
    clock = SystemClock()
    kept = None if keep == "ever" else _duration(keep)
    stop = threading.Event() if once else _stop_on_signals()
    index = _index(settings, clock, kept)
    if index is None and once:
        remedy = "give TIDEGATE_SERVICES__ELASTIC_URL, or start a local one with `tidegate up`"
        raise ServiceUnreachable("there is no Elasticsearch to ship to", remedy=remedy)
    logs = configure(log_options(settings, "ship"), clock=clock)
    unsubscribe = ShipFailures(settings).listen()
    try:
        if not once:
            os.nice(_GIVES_WAY)
            emit("worker.started", process="ship")
        if index is None:
            # Every other process runs without Elasticsearch, so the shipper of a Procfile must not fail either.
            typer.echo("there is no log search; lines stay in their files until there is one", err=True)
        while index is None and not stop.wait(_LOOK_AGAIN):
            index = _index(settings, clock, kept)
        if index is not None:
            with closing(Shipper(settings.log_folder, index)) as shipper:
                if once:
                    typer.echo(f"shipped {shipper.drain()} lines", err=True)
                else:
                    shipper.run(stop)
    finally:
        unsubscribe()
        logs.close()


def _duration(text: str) -> timedelta:
    """Parse a duration. Raises `WrongCall`."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise WrongCall(str(error)) from error


def _matching_lines(
    index: LogIndex | None, folder: Path, query: LogQuery, limit: int, *, tell_story: bool
) -> list[Line]:
    from engine.telemetry.delivery_story import LONGEST, story
    from engine.telemetry.log_file_search import Files

    if index is not None:
        try:
            hits = index.search(query.elastic(), limit, query.picks)
            if hits is not None:
                return story(hits, lambda focus: _about(index, focus)) if tell_story else list(hits)
            why = "nothing was shipped yet"
        except OperatorError as error:  # the log search is away, or refuses us
            why = str(error)
    else:
        why = "there is no log search"
    typer.echo(f"{why}: reading the files in {folder}", err=True)
    files = Files(folder)
    hits_of_files = files.search(query, limit)
    return story(hits_of_files, lambda focus: files.about(focus, LONGEST)) if tell_story else hits_of_files


def _about(index: LogIndex, focus: Focus) -> list[Line]:
    from engine.telemetry.delivery_story import LONGEST

    return list(index.search(focus.elastic(), LONGEST, focus.holds) or ())


def _index(settings: Settings, clock: SystemClock, keep: timedelta | None = None) -> LogIndex | None:
    """Return the log search that the settings name or that runs locally; None if there is none."""
    from engine.local.services.local_services import LocalServices

    services = settings.services
    given = services.elastic_url.get_secret_value() if services.elastic_url else ""
    local = next((service.url for service in LocalServices.of(settings).status() if service.name == "elastic"), "")
    if not (given or local):
        return None
    from engine.stores.search.log_index import LogIndex, open_client

    key = services.elastic_api_key.get_secret_value() if services.elastic_api_key else None
    return LogIndex(open_client(given or local, api_key=key, ca=services.elastic_ca), clock, keep=keep)


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def on_signal(_: int, __: FrameType | None) -> None:
        if not stop.is_set():
            stop.set()
            # A request may be waiting for a server that does not answer. Abandoning it is as safe as a kill.
            timer = threading.Timer(_STOP_WITHIN, os._exit, [0])
            timer.daemon = True
            timer.start()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop


def _since(text: str, clock: SystemClock) -> Instant:
    try:
        return clock.system_now() - millis(parse_duration(text))
    except ValueError:
        try:
            return parse_instant(text)
        except ValueError as error:
            raise WrongCall(f"--since: {text!r} is neither a duration nor a moment", remedy="write 1h or 7d") from error


def _shown(line: Line) -> str:
    from engine.telemetry.logging import for_people

    shown = for_people(line)
    head = f"{str(line['@timestamp']).replace('T', ' ')} {shown.pop('level'):7} {shown.pop('event')}"
    shown.pop("timestamp")
    return head + "".join(f" {name}={value}" for name, value in shown.items())
