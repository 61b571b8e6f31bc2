"""`tidegate worker`: the processes of one fleet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import typer

from actors.fleet import FLEET_VARIABLE, exec_fleet, run_fleet_in_process, stop_fleets
from actors.log_options import log_options
from actors.middleware import wait_for_stop
from actors.setup import broker_for
from engine.app.app import App
from engine.cli.context import addressed, settings_of
from engine.cli.prefork import keep
from engine.cli.signals import on_signals
from engine.cli.usable import require_usable
from engine.errors import NotFound
from engine.local.services.local_services import LocalServices
from engine.policy.load import load_policies
from engine.policy.policyset import PolicySet
from engine.policy.watch import PolicyWatcher
from engine.settings import Settings
from engine.telemetry import logging
from engine.telemetry.events import emit


def worker(context: typer.Context, fleet: str, *, as_dramatiq: bool) -> None:
    """Run `tidegate worker`; see `engine.cli.process_commands.worker`."""
    settings = settings_of(context)
    policies = load_policies(settings.paths.policies)
    fleets = policies.fleets
    if fleet not in fleets:
        raise NotFound(f"there is no fleet {fleet}", remedy=f"fleets are {', '.join(fleets)}")
    os.nice(fleets[fleet].niceness)
    if as_dramatiq:
        urls = LocalServices.of(settings).running()
        exec_fleet(fleets[fleet], environ={**os.environ, **urls.environment(), FLEET_VARIABLE: fleet})
    keep(settings, fleets[fleet].processes, wanted=_processes_of(fleet, settings.paths.policies, policies))
    serve(addressed(settings), fleet, [fleet], started=policies)


def _processes_of(fleet: str, folder: Path, policies: PolicySet) -> Callable[[], int]:
    """Return a function that reads the policies again and returns how many processes the fleet should have now.

    A fleet that is gone keeps its processes: they serve its lanes until another fleet's process does.
    """
    watcher = PolicyWatcher(folder, policies, on_change=lambda _new, _old: None, on_refused=lambda _error: None)
    count = policies.fleets[fleet].processes

    def wanted() -> int:
        nonlocal count
        watcher.check()
        found = watcher.current.fleets.get(fleet)
        count = count if found is None else found.processes
        return count

    return wanted


def serve(
    settings: Settings, process: str, fleets: Sequence[str], *, exact: bool = False, started: PolicySet | None = None
) -> None:
    """Serve these fleets as threads of this process until a stop request; `exact` as in `log_options`.

    `started` are the policies by which the process was set up, if an earlier process did that.
    """
    app = App(settings)
    app.hooks.started = started
    logging.configure(log_options(app.settings, process, exact=exact), clock=app.system)
    on_signals()
    require_usable(app)
    app.watch_files(process)
    app.statistics_recorder.start(process)
    app.gate_keeper.start(process)
    app.hooks.fleets = fleets
    broker = broker_for(app)
    workers = [run_fleet_in_process(broker, app.policies.fleets[name], name) for name in fleets]
    app.start_heartbeat(process, lambda: lanes_of(app, fleets))
    emit("worker.started", process=process)
    while not wait_for_stop(60.0):
        pass
    app.stop_watching()
    stop_fleets(broker, workers)
    emit("worker.stopped", process=process, reason="asked")
    app.close()


def lanes_of(app: App, fleets: Iterable[str]) -> set[str]:
    """Return the lanes that these fleets serve under the policies in force."""
    known = app.policies.fleets
    return {lane for name in fleets if name in known for lane in known[name].lanes}
