"""`tidegate up`, `down` and `status`: the local services and the processes of the Procfile."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from engine.clock import parse_duration
from engine.errors import WrongCall
from engine.local.addresses import Status, without_secrets
from engine.local.output import Output
from engine.local.presence import Presence
from engine.local.procfile import ProcessType, parse_pairs, parse_scale, read_procfile
from engine.local.services import LocalServices
from engine.local.supervisor import Supervisor, instances
from engine.settings import LoadedSettings, Settings, load_settings

_DOWN_PATIENCE = timedelta(seconds=90)  # the longest stop timeout that is sensible, and the services after it
_NEEDED = frozenset({"mongo", "broker", "cache"})

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def mount(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(epilog="Example: tidegate up --scale slow=4")(up)
    app.command(epilog="Example: tidegate down")(down)
    app.command(epilog="Example: tidegate status --json")(status)


def up(
    context: typer.Context,
    procfile: Annotated[Path, typer.Option(help="The file with the process types.")] = Path("Procfile"),
    scale: Annotated[list[str] | None, typer.Option(help="How many of each, e.g. slow=4,deliver=2.")] = None,
    stop_timeout: Annotated[list[str] | None, typer.Option(help="Until KILL after TERM, e.g. deliver=60s.")] = None,
    services_only: Annotated[bool, typer.Option("--services-only", help="Start no process of the Procfile.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="With --services-only: leave them running.")] = False,
) -> None:
    """Start what local services are missing, run the Procfile, and stop both on Ctrl-C."""
    if detach and not services_only:
        raise WrongCall("--detach needs --services-only", remedy="run the Procfile in the foreground")
    settings = _settings(context)
    types = () if services_only else read_procfile(procfile)
    names = [kind.name for kind in types]
    counts = parse_scale(scale or (), names) if types else {}
    timeouts = dict.fromkeys(names, settings.engine.stop_timeout) | _durations(stop_timeout or (), names)
    services = LocalServices.of(settings, say=lambda text: print(text, file=sys.stderr))  # noqa: T201 - progress
    with Presence(settings.paths.var).held(), _terminable():
        try:
            urls = services.start()
            if services_only:
                _show(services.status(), Console(stderr=True))
                code = 0 if detach else _wait()
            else:
                code = _supervise(types, counts, urls.environment(), timeouts)
        except BaseException:  # Ctrl-C too: what was started is ended first; raised again
            services.stop()
            raise
        if not detach:
            services.stop()
    raise typer.Exit(code)


def down(context: typer.Context) -> None:
    """End what `tidegate up` runs for this folder, processes and local services, also what a killed run left."""
    settings = _settings(context)
    console = Console(stderr=True)
    if Presence(settings.paths.var).end(_DOWN_PATIENCE):
        console.print("ended [bold]tidegate up[/bold]")
    ended = LocalServices.of(settings).stop(everything=True)
    console.print(f"ended {', '.join(ended)}" if ended else "no local service was running")


def status(context: typer.Context, as_json: Json = False) -> None:
    """Show which services run and whether `tidegate up` does; exit code 3 if one that is needed does not."""
    settings = _settings(context)
    shown = [replace(one, url=without_secrets(one.url)) for one in LocalServices.of(settings).status()]
    runner = Presence(settings.paths.var).runner()
    if as_json:
        document = {"services": [asdict(one) for one in shown], "up": runner.pid if runner else None}
        typer.echo(json.dumps(document))
    else:
        _show(shown, Console())
        typer.echo(f"tidegate up runs (pid {runner.pid})" if runner else "tidegate up does not run")
    if any(one.name in _NEEDED and one.state not in {"given", "running"} for one in shown):
        raise typer.Exit(3)


def _settings(context: typer.Context) -> Settings:
    """What the main command loaded, or the settings of this folder."""
    loaded = context.find_object(LoadedSettings) or load_settings()
    return loaded.settings


def _durations(texts: list[str] | tuple[str, ...], names: list[str]) -> dict[str, timedelta]:
    pairs = parse_pairs(texts, names, "stop-timeout") if texts and names else {}
    try:
        return {name: parse_duration(value) for name, value in pairs.items()}
    except ValueError as error:
        raise WrongCall(f"stop-timeout: {error}") from error


def _supervise(
    types: tuple[ProcessType, ...], scale: dict[str, int], env: dict[str, str], timeouts: dict[str, timedelta]
) -> int:
    names = [name for name, _ in instances(types, scale)]
    output = Output(sys.stdout, names, now=lambda: datetime.now().astimezone())
    return Supervisor(types, output, Path.cwd(), scale=scale, env=env, stop_timeouts=timeouts).run()


def _wait() -> int:
    """Until told to end: 130 after Ctrl-C, 0 after TERM."""
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt as told:
        return 0 if told.args else 130


@contextmanager
def _terminable() -> Iterator[None]:
    """Let TERM unwind like Ctrl-C while no supervisor handles it, so that services are ended."""

    def told(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - a handler's signature
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, told)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show(rows: list[Status], console: Console) -> None:
    table = Table("service", "state", "address", "pid", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row.name, row.state, without_secrets(row.url), str(row.pid or ""))
    console.print(table)
