"""Module that the `dramatiq` command loads: the broker of this process with its actors, from settings and environment.

`tidegate worker NAME` starts a fleet: it finds the services and becomes that command. Import this module nowhere else:
importing it opens the application.
"""

from __future__ import annotations

import os

from actors.log_options import log_options
from actors.middleware.last_words import LastWords
from actors.setup import broker_for
from engine.app.app import App
from engine.settings import load_settings
from engine.telemetry import logging
from engine.telemetry.events import emit


def _lanes() -> tuple[str, ...]:
    """Return the lanes that this process serves under the policies in force."""
    fleet = app.policies.fleets.get(os.environ.get("TIDEGATE_FLEET", ""))
    return () if fleet is None else fleet.lanes


def _ended() -> None:
    """Write the remaining results and record that this process has ended."""
    app.finish_deliveries()
    app.heartbeat.stop()
    app.statistics_recorder.stop()
    app.gate_keeper.stop()


app = App(load_settings().settings)
logging.configure(log_options(app.settings, os.environ.get("TIDEGATE_FLEET", "worker")), clock=app.system)
app.watch_files(os.environ.get("TIDEGATE_FLEET", "worker"))
app.statistics_recorder.start(os.environ.get("TIDEGATE_FLEET", "worker"))
app.gate_keeper.start(os.environ.get("TIDEGATE_FLEET", "worker"))
app.hooks.keeps_processes = True
app.hooks.fleets = (os.environ.get("TIDEGATE_FLEET", ""),)
broker = broker_for(app)
app.start_heartbeat(os.environ.get("TIDEGATE_FLEET", "worker"), _lanes)
broker.add_middleware(LastWords(_ended))
emit("worker.started", process=os.environ.get("TIDEGATE_FLEET", "worker"))
