"""Runs `tidegate run` and the clock's process."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from threading import Thread

import typer

from actors.fleet import run_fleet_in_process, stop_fleets
from actors.log_options import log_options
from actors.messenger import BrokerMessenger
from actors.middleware import request_stop, stop_requested, wait_for_stop
from actors.setup import broker_for, sweep_removed_lanes
from engine.app.app import App
from engine.cli.context import addressed, migrate, require_openable, say, settings_of, where_mails_go, with_urls
from engine.cli.feed import following
from engine.cli.fleet import lanes_of, serve
from engine.cli.prefork import fork, keep
from engine.cli.serve_web import pages_of_run
from engine.cli.signals import interrupted, on_signals
from engine.cli.usable import require_usable
from engine.decisions.routing import SUSPECT
from engine.local.processes.instance_lock import InstanceLock
from engine.local.processes.suspect_child import Nursery
from engine.local.services.addresses import Urls, given
from engine.local.services.local_services import LocalServices
from engine.pipeline.feed.dispatch_indexing import IndexTurns
from engine.pipeline.scheduler.loop import Chore, SchedulerLoop
from engine.policy.load import load_policies
from engine.policy.policyset import PolicySet
from engine.process_identity import myself
from engine.settings import Settings
from engine.telemetry import logging
from engine.telemetry.events import emit

URLS = "urls"
"""Variable under which the suspects' child receives the services' addresses."""
STOP_PATIENCE = timedelta(seconds=90)
"""Time that `tidegate run` has to end: its batches (10 s), the drivers' time-outs (30 s), its own services (20 s)."""
MAINTAIN_EVERY = 3_600.0
INDEX_EVERY = 1.0
SWEEP_EVERY = 5.0
"""Seconds between two clean-ups of old records, two checks for waiting index requests, two sweeps of removed lanes."""
UPKEEP_EVERY = 1.0
"""Seconds after which the upkeep learns that this process is the clock."""


def run(context: typer.Context, *, no_services: bool, log_format: str = "") -> None:
    """Run `tidegate run`; see `engine.cli.process_commands.run`."""
    settings = settings_of(context)
    require_openable(settings)
    owner = myself()
    try:
        fork(1, STOP_PATIENCE, search=not no_services or settings.services.elastic_url is not None)
    except typer.Exit:  # the parent ends: a child that was killed could not end its services
        LocalServices.of(settings, owner=owner).stop()
        raise
    nursery = Nursery(
        lambda environment: _serve_suspects(settings, Urls(**json.loads(environment[URLS]))),
        settings.engine.stop_timeout,
    )
    local = LocalServices.of(settings, say=say, owner=owner)
    came = on_signals()
    with InstanceLock(settings.paths.var).held("tidegate run"):
        try:
            urls = local.running() if no_services or _served(settings) else local.start(wait_for_search=False)
            local.keep()
            nursery.start({URLS: json.dumps(asdict(urls))})
            _run(with_urls(settings, urls), log_format, local.start_search)
        finally:
            nursery.stop()
            local.stop()
    interrupted(came)


def _served(settings: Settings) -> bool:
    """Return whether every needed service has a given address, so that there is nothing to start."""
    return {"mongo", "broker", "cache"} <= set(given(settings))


def _serve_suspects(settings: Settings, urls: Urls) -> None:
    """Serve the suspects in the child of `tidegate run`: one process with one thread."""
    fleets = load_policies(settings.paths.policies).fleets
    names = [name for name, fleet in fleets.items() if SUSPECT in fleet.lanes]
    serve(with_urls(settings, urls), SUSPECT, names, exact=True)


def _run(settings: Settings, log_format: str, ready: Callable[[], None]) -> None:
    app = App(settings)
    logging.configure(log_options(settings, "run", form=log_format), clock=app.system)
    require_usable(app)
    migrate(app)
    app.watch_files("run")
    app.statistics_recorder.start("run")
    app.gate_keeper.start("run", may_control=True)
    broker = broker_for(app)
    fleets = {name: fleet for name, fleet in app.policies.fleets.items() if SUSPECT not in fleet.lanes}
    app.hooks.fleets = fleets
    workers = {name: run_fleet_in_process(broker, fleet, name) for name, fleet in fleets.items()}
    app.hooks.fleets = workers  # with the fleets that a later edit adds

    def start_missing(new: PolicySet) -> None:
        for name, fleet in new.fleets.items():
            if name not in workers and SUSPECT not in fleet.lanes:
                workers[name] = run_fleet_in_process(broker, fleet, name)

    app.hooks.swapped.append(start_missing)
    start_missing(app.policies)  # an edit may have come meanwhile
    app.start_heartbeat("run", lambda: lanes_of(app, workers))
    feed = Thread(target=following(app, "run").run, args=(stop_requested, wait_for_stop), name="feed")
    feed.start()
    emit("worker.started", process="run", threads=sum(fleet.threads for fleet in fleets.values()))
    say(where_mails_go(settings))
    pages = pages_of_run(app)
    say(f"tidegate runs: {', '.join(fleets)}, feed, clock as threads, suspects as a child; Ctrl-C ends it")
    if pages is not None:
        say(f"the pages: {pages.url}")
    ready()
    try:
        _clockwork(app).run(stop_requested, wait_for_stop)
    finally:
        request_stop()
        if pages is not None:
            pages.stop()
        feed.join()
        app.stop_watching()  # so that no fleet is started any more
        stop_fleets(broker, list(workers.values()))
        emit("worker.stopped", process="run", reason="asked")
        app.close()


def run_clock(context: typer.Context) -> None:
    """Run `tidegate clock run`; see `engine.cli.process_commands.run_clock`."""
    settings = settings_of(context)
    keep(settings, 1)
    app = App(addressed(settings))
    logging.configure(log_options(app.settings, "clock"), clock=app.system)
    on_signals()
    require_usable(app)
    migrate(app)
    app.watch_files("clock")
    app.statistics_recorder.start("clock")
    app.gate_keeper.start("clock", may_control=True)
    app.start_heartbeat("clock")
    broker_for(app)
    emit("worker.started", process="clock")
    try:
        _clockwork(app).run(stop_requested, wait_for_stop)
    finally:
        emit("worker.stopped", process="clock", reason="asked")
        app.close()


def _clockwork(app: App) -> SchedulerLoop:
    messenger = app.messenger()
    chores = [Chore(UPKEEP_EVERY, app.upkeep.poke)]
    if isinstance(messenger, BrokerMessenger):
        broker = messenger.broker
        turns = IndexTurns(app.stores.index_requests, app.mails_go_out, messenger, app.clock)
        chores += [Chore(MAINTAIN_EVERY, messenger.maintain), Chore(INDEX_EVERY, turns.run)]
        chores.append(Chore(SWEEP_EVERY, lambda: sweep_removed_lanes(app, broker)))
    process = os.environ.get("TIDEGATE_PROCESS", "clock")
    owner = f"{socket.gethostname()}:{app.settings.paths.var.resolve()}:{process}"
    return SchedulerLoop(
        app.clock_tick,
        app.stores.leases,
        app.stores.wakeup,
        app.clock,
        owner=owner,
        every=app.settings.engine.tick,
        chores=chores,
        outages=app.stores.OUTAGES,
        failures=app.failures,
    )
