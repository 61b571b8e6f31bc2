"""What the `dramatiq` command loads: the broker of this process with its actors, from settings and environment.

A fleet is started by `tidegate worker NAME`, which finds the services and becomes that command.
"""

from __future__ import annotations

import os

from actors.build import broker_for
from engine.app import App, secrets
from engine.settings import Settings, load_settings
from engine.telemetry import logging


def log_options(settings: Settings, process: str, *, stdout: bool | None = None) -> logging.LogOptions:
    """Where a process of this name writes its lines."""
    return logging.LogOptions(
        process=process,
        folder=settings.log_folder,
        level=settings.logs.level,
        stdout=settings.logs.stdout if stdout is None else stdout,
        max_bytes=settings.logs.max_bytes,
        keep=settings.logs.keep,
        secrets=secrets(settings),
    )


def _start() -> App:
    app = App(load_settings().settings)
    logging.configure(log_options(app.settings, os.environ.get("TIDEGATE_PROCESS", "worker")), clock=app.system)
    app.watch_policies()
    return app


if "TIDEGATE_PROCESS" in os.environ:  # set by `tidegate worker`: importing this module elsewhere starts nothing
    app = _start()
    broker = broker_for(app)
