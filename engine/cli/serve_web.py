"""Runs `tidegate web`, and the thread of `tidegate run` that serves the pages."""

from __future__ import annotations

import typer

from actors.log_options import log_options
from actors.middleware import wait_for_stop
from engine.app.app import App
from engine.cli.context import addressed, say, settings_of
from engine.cli.prefork import keep
from engine.cli.signals import interrupted, on_signals
from engine.errors import OperatorError
from engine.telemetry import logging
from engine.telemetry.events import emit
from engine.web.server import WebServer, bound, is_loopback, wanted_port


def web(context: typer.Context, *, host: str | None, port: int | None, log_format: str) -> None:
    """Run `tidegate web`; see `engine.cli.web`."""
    settings = settings_of(context)
    number, another = wanted_port(port, settings.web.port)
    keep(settings, 1)
    came = on_signals()
    app = App(addressed(settings))
    logging.configure(log_options(app.settings, "web", form=log_format), clock=app.system)
    app.follow_files("web")
    app.statistics_recorder.start("web")
    server = serve_pages(app, host or settings.web.host, number, another=another)
    app.start_heartbeat("web")
    emit("worker.started", process="web")
    say(f"tidegate web: {server.url}")
    try:
        while not wait_for_stop(60.0):
            pass
    finally:
        server.stop()
        emit("worker.stopped", process="web", reason="asked")
        app.close()
    interrupted(came)


def serve_pages(app: App, host: str, port: int, *, another: bool) -> WebServer:
    """Serve the pages of `app` in a thread.

    Raises `OperatorError` if the address cannot be bound, or reaches further than this machine without an access.
    """
    if not is_loopback(host):
        _require_access(app, host)
    server = WebServer(app, bound(host, port, another=another))
    server.start()
    app.hooks.address = server.url
    return server


def _require_access(app: App, host: str) -> None:
    """Refuse to serve other machines while anybody could act. Raises `OperatorError`, and the stores' errors."""
    if not app.access_control.everything():
        raise OperatorError(
            f"no access is configured, so the pages are not served on {host}",
            remedy="configure one (tidegate access add NAME --role operate), or serve 127.0.0.1",
        )


def pages_of_run(app: App) -> WebServer | None:
    """Serve the pages as a thread of `tidegate run`; None if they are off (`web.run: false`)."""
    settings = app.settings
    if not settings.web.run:
        return None
    number, another = wanted_port(None, settings.web.port)
    return serve_pages(app, settings.web.host, number, another=another)
