"""`tidegate status`: the services and processes that run, here and elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final, TextIO

import typer

from engine.cli.context import AsJson, settings_of
from engine.cli.tables import show
from engine.errors import EngineError, InvalidSource
from engine.local.processes.instance_lock import InstanceLock
from engine.local.processes.status_file import Supervised, SupervisedFile
from engine.local.services.addresses import Status, require_given, without_secrets
from engine.local.services.local_services import LocalServices

if TYPE_CHECKING:
    from engine.domain.processes import Seen
    from engine.settings import Settings

SERVICES_ONLY: Final = "tidegate up --services-only"
_NEEDED: Final = frozenset({"mongo", "broker", "cache"})
_NOTHING: Final = "nothing runs for {}: start it with `tidegate up`, or with `tidegate run`"


@dataclass(frozen=True)
class Shown:
    """The running services, and the processes of this folder's supervisor or, without one, those the stores know."""

    services: list[Status]
    runner: tuple[int, str] | None
    """The pid and the command of the runner of this folder's processes."""
    processes: list[Supervised] | None
    elsewhere: list[Seen] = field(default_factory=list)
    policies: list[str] = field(default_factory=list)
    """What of the policies in force no process follows, in words."""
    pages: list[str] = field(default_factory=list)
    """The addresses at which processes serve the pages."""

    @property
    def code(self) -> int:
        """Exit code: 0 if all is well, 1 if a process or every process is down, 3 if a needed service is down."""
        if any(service.name in _NEEDED and not serves(service) for service in self.services):
            return 3
        if self.processes is not None:
            return int(any(process.state != "running" for process in self.processes))
        return int(self.runner is None and not self.elsewhere)


def serves(service: Status) -> bool:
    """Return whether a service runs and answers; a given one must take connections (or nobody can tell)."""
    return service.state in ("running", "given") and service.answers is not False


def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show which services and processes run; exit code 3 if a needed service does not, 1 if a process does not.

    It tests that given servers take connections and that local ones answer; `tidegate check` tests that they serve.
    """
    settings = settings_of(context)
    shown = current(settings)
    if as_json:
        typer.echo(json.dumps(_document(shown)))
    else:
        _print(shown, str(settings.paths.var))
    if shown.code:
        raise typer.Exit(shown.code)


def current(settings: Settings) -> Shown:
    """Return what runs now. Raises `WrongCall` for an address that cannot be read."""
    local = LocalServices.of(settings)
    for name, url in local.given.items():
        require_given(name, url)
    services = local.status()
    with ThreadPoolExecutor(len(services)) as pool:
        services = list(pool.map(local.probed, services))
    presence = InstanceLock(settings.paths.var)
    runner = presence.runner()
    serving = all(serves(service) for service in services if service.name in _NEEDED)
    alive = _alive(settings) if serving else []
    pages = list(dict.fromkeys(one.report.address for one in alive if one.report.address))
    if runner is not None:
        states = SupervisedFile(settings.paths.var).read(runner)
        return Shown(services, (runner.pid, presence.command()), states, [], _unfollowed(settings, alive), pages)
    return Shown(services, None, None, alive, _unfollowed(settings, alive), pages)


def _unfollowed(settings: Settings, alive: Sequence[Seen]) -> list[str]:
    """Return what of the policies no living process follows: by their own notes, and fleets without a process."""
    from engine.policy.load import load_policies

    told = [f"{process.process}: {note}" for process in alive for note in process.notes]
    kinds = {process.process for process in alive}
    if kinds and "run" not in kinds:
        with suppress(InvalidSource):  # `check` says what is wrong with them
            missing = [name for name in load_policies(settings.paths.policies).fleets if name not in kinds]
            told += [f"{name}: no process of this fleet; `tidegate worker {name}` is one" for name in missing]
    return list(dict.fromkeys(told))


def _alive(settings: Settings) -> list[Seen]:
    """Return the processes that the stores know; none if MongoDB cannot be asked, which `check` explains."""
    import pymongo
    from pymongo.errors import PyMongoError

    from engine.app.app import App
    from engine.cli.context import addressed

    try:
        app = App(addressed(settings))
        try:
            with pymongo.timeout(2):
                return app.liveness.alive()
        finally:
            app.close()
    except (PyMongoError, EngineError):
        return []


def _document(shown: Shown) -> dict[str, object]:
    services = [{**asdict(service), "url": without_secrets(service.url)} for service in shown.services]
    pid, command = shown.runner or (None, None)
    processes = None if shown.processes is None else [asdict(process) for process in shown.processes]
    elsewhere = [{**asdict(process), "ago": process.ago.total_seconds()} for process in shown.elsewhere]
    return {
        "services": services,
        "up": pid,
        "command": command,
        "processes": processes,
        "elsewhere": elsewhere,
        "policies": shown.policies,
        "pages": shown.pages,
    }


def _print(shown: Shown, folder: str) -> None:
    show_services(shown.services, sys.stdout)
    if shown.processes:
        rows = [
            (process.name, process.state, process.pid or "", process.since, process.restarts or "", process.last_exit)
            for process in shown.processes
        ]
        typer.echo("")
        show("", ("process", "state", "pid", "since", "restarts", "last exit"), rows)
    if shown.elsewhere:
        typer.echo("")
        rows_elsewhere = [
            (process.process, ", ".join(process.lanes), process.since, process.id) for process in shown.elsewhere
        ]
        show("", ("process elsewhere", "lanes", "since", "host and pid"), rows_elsewhere)
    if shown.policies:
        typer.echo("")
        typer.echo("\n".join(["not as the policies say:", *(f"  {note}" for note in shown.policies)]))
    typer.echo("")
    for url in shown.pages:
        typer.echo(f"the pages: {url}")
    if shown.runner is not None:
        pid, command = shown.runner
        typer.echo(f"{command} runs (pid {pid})")
    elif not shown.elsewhere and not any(serves(service) for service in shown.services):
        typer.echo(_NOTHING.format(folder))
    elif not shown.elsewhere:
        typer.echo(
            "tidegate up does not run, and no process elsewhere has reported for 10 s: campaigns do not progress"
        )
    else:
        typer.echo("tidegate up does not run here")


def show_services(rows: Sequence[Status], stream: TextIO) -> None:
    """Print the table of services."""
    cells = [
        (
            row.name,
            f"{row.state}, does not answer" if row.answers is False else row.state,
            without_secrets(row.url),
            row.pid or "",
            row.since,
            row.restarts or "",
            row.last_exit,
        )
        for row in rows
    ]
    show("", ("service", "state", "address", "pid", "since", "restarts", "last exit"), cells, stream)
