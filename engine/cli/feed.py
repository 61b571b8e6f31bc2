"""`tidegate feed`: the process that follows the users' changes."""

from __future__ import annotations

import os
import socket

import typer

from actors.log_options import log_options
from actors.middleware import stop_requested, wait_for_stop
from actors.setup import broker_for
from engine.app.app import App
from engine.cli.context import addressed, migrate, settings_of
from engine.cli.prefork import keep
from engine.cli.signals import interrupted, on_signals
from engine.cli.usable import require_usable
from engine.pipeline.feed.loop import FeedLoop
from engine.telemetry import logging
from engine.telemetry.events import emit


def feed(context: typer.Context) -> None:
    """Run `tidegate feed`; see `engine.cli.process_commands.feed`."""
    settings = settings_of(context)
    keep(settings, 1, search=True)
    app = App(addressed(settings))
    logging.configure(log_options(app.settings, "feed"), clock=app.system)
    came = on_signals()
    require_usable(app)
    migrate(app)
    app.watch_files("feed")
    app.statistics_recorder.start("feed")
    app.start_heartbeat("feed")
    broker_for(app)
    emit("worker.started", process="feed")
    try:
        following(app, "feed").run(stop_requested, wait_for_stop)
    finally:
        emit("worker.stopped", process="feed", reason="asked")
        app.close()
    interrupted(came)


def following(app: App, process: str) -> FeedLoop:
    """Return the feed's loop of this process."""
    name = os.environ.get("TIDEGATE_PROCESS", process)
    owner = f"{socket.gethostname()}:{app.settings.paths.var.resolve()}:{name}"
    return FeedLoop(
        app.change_feed, app.stores.leases, app.clock, owner=owner, outages=app.stores.OUTAGES, failures=app.failures
    )
