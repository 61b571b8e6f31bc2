"""`tidegate up`, `down` and `status`: the local services and the processes of the Procfile."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from engine.cli.context import LogFormat, loaded_of, require_openable, say, settings_of, where_mails_go
from engine.cli.status import SERVICES_ONLY, show_services, status
from engine.clock import parse_duration
from engine.errors import WrongCall
from engine.local.processes.instance_lock import InstanceLock
from engine.local.processes.output import Output
from engine.local.processes.procfile import ProcessType, parse_pairs, parse_scale, read_procfile
from engine.local.processes.status_file import SupervisedFile, Tell
from engine.local.processes.supervisor import Supervisor, instances
from engine.local.services.addresses import without_secrets
from engine.local.services.local_services import LocalServices
from engine.local.services.registry_file import NAMES
from engine.process_identity import myself

_BRIEF = "TIDEGATE_LOGS__BRIEF"
_DOWN_PATIENCE = timedelta(seconds=90)  # the longest sensible stop timeout, and the services after it

if TYPE_CHECKING:
    from engine.settings import Settings


def mount(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(epilog="Example: tidegate up --scale slow=4")(up)
    app.command(epilog="Example: tidegate down")(down)
    app.command(epilog="Example: tidegate status --json")(status)


def up(
    context: typer.Context,
    procfile: Annotated[Path, typer.Option(help="The file with the process types.")] = Path("Procfile"),
    scale: Annotated[list[str] | None, typer.Option(help="How many of each, e.g. slow=4,deliver=2.")] = None,
    stop_timeout: Annotated[
        list[str] | None, typer.Option(help="The time from TERM to KILL, e.g. deliver=60s.")
    ] = None,
    services_only: Annotated[bool, typer.Option("--services-only", help="Start no process of the Procfile.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="With --services-only: leave them running.")] = False,
    log_format: LogFormat = None,
) -> None:
    """Start the missing local services, run the Procfile, and stop both on Ctrl-C."""
    if detach and not services_only:
        raise WrongCall("--detach needs --services-only", remedy="run the Procfile in the foreground")
    loaded = loaded_of(context)
    settings = loaded.settings
    require_openable(settings)
    types = () if services_only else read_procfile(procfile)
    names = [kind.name for kind in types]
    counts = parse_scale(scale or (), names) if types else {}
    timeouts = dict.fromkeys(names, settings.engine.stop_timeout) | _durations(stop_timeout or (), names)
    output = _output([name for name, _ in instances(types, counts)], as_json=log_format == "json")
    services = LocalServices.of(settings, say=output.say)
    with InstanceLock(settings.paths.var).held(SERVICES_ONLY if services_only else "tidegate up"), _terminable():
        try:
            _introduce(output, settings, services)
            urls = services.start(wait_for_search=services_only)
            if not detach:
                services.keep()
            if services_only:
                show_services(services.status(), sys.stderr)
                code = 0 if detach else _wait()
            else:
                env = {**_brief(as_json=log_format == "json"), **loaded.handed, **urls.environment()}
                tell = partial(SupervisedFile(settings.paths.var).write, myself())
                code = _supervise(types, counts, env, timeouts, output, services.start_search, tell)
        except KeyboardInterrupt as interrupt:  # before anything ran
            services.stop()
            if interrupt.args:  # by TERM
                raise typer.Exit from interrupt
            raise
        except BaseException:  # end the started services first, then raise again
            services.stop()
            raise
        if detach:
            services.leave()
        else:
            services.stop()
    raise typer.Exit(code)


def down(context: typer.Context) -> None:
    """End the processes and local services that `tidegate up` runs for this folder, and those left by a killed run."""
    settings = settings_of(context)
    presence = InstanceLock(settings.paths.var)
    runner, command = presence.runner(), presence.command()
    services = LocalServices.of(settings)
    ran = {service.name for service in services.status() if service.state == "running"}
    ended = [f"{command} (pid {runner.pid})"] if runner and presence.end(_DOWN_PATIENCE) else []
    ran.update(services.stop(everything=True))  # services that the runner did not end; most often it has ended all
    ended += [name for name in NAMES if name in ran]
    say(f"ended {', '.join(ended)}" if ended else f"nothing runs for {settings.paths.var}")


def _durations(texts: list[str] | tuple[str, ...], names: list[str]) -> dict[str, timedelta]:
    pairs = parse_pairs(texts, names, "stop-timeout") if texts and names else {}
    try:
        return {name: parse_duration(value) for name, value in pairs.items()}
    except ValueError as error:
        raise WrongCall(f"stop-timeout: {error}") from error


def _supervise(
    types: tuple[ProcessType, ...],
    scale: dict[str, int],
    env: dict[str, str],
    timeouts: dict[str, timedelta],
    output: Output,
    ready: Callable[[], None],
    tell: Tell,
) -> int:
    """Run the processes; when all of ours serve, say so once and call `ready`."""
    ours = {name for name, kind in instances(types, scale) if kind.command.split()[0].endswith("tidegate")}
    output.on_event = _Readiness(ours, output, ready).hear
    return Supervisor(types, output, Path.cwd(), scale=scale, env=env, stop_timeouts=timeouts, tell=tell).run()


def _output(names: list[str], *, as_json: bool) -> Output:
    return Output(sys.stdout, names, now=lambda: datetime.now().astimezone(), as_json=as_json)


def _brief(*, as_json: bool) -> dict[str, str]:
    """Return the variable that makes processes print a window as one line: people see one sentence of it."""
    return {} if as_json or _BRIEF in os.environ else {_BRIEF: "true"}


def _introduce(output: Output, settings: Settings, services: LocalServices) -> None:
    """Say what `tidegate up` will do, before it does anything that takes long."""
    local = [name for name in NAMES if name not in services.given]
    if local:
        output.say(f"starting {', '.join(local)} with data in {settings.paths.var}; Ctrl-C ends everything")
    for name in services.given:
        output.say(f"{name} is given: {without_secrets(services.given[name])}")
    output.say(where_mails_go(settings))


class _Readiness:
    """Says once that each of our processes has reported that it serves."""

    def __init__(self, waiting: set[str], output: Output, ready: Callable[[], None]) -> None:
        self._waiting, self._output, self._ready = set(waiting), output, ready
        self._count, self._began = len(waiting), time.monotonic()

    def hear(self, name: str, event: str) -> None:
        """Handle an event of the process `name`."""
        if event == "worker.started" and name in self._waiting:
            self._waiting.discard(name)
            if not self._waiting:
                took = time.monotonic() - self._began
                self._output.say(f"ready: {self._count} processes serve, {took:.1f} s after they were started")
                self._ready()


def _wait() -> int:
    """Wait for a stop signal; return 130 after Ctrl-C, 0 after TERM."""
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt as interrupt:
        return 0 if interrupt.args else 130


@contextmanager
def _terminable() -> Iterator[None]:
    """Make TERM unwind like Ctrl-C while no supervisor handles it, so that services are ended."""

    def interrupted(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - a handler's signature
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
