"""What the `dramatiq` command loads: the broker of this process with its actors, from settings and environment.

A fleet is started by `tidegate worker NAME`, which finds the services and becomes that command; nothing else imports
this module, for that alone opens the application.
"""

from __future__ import annotations

import os

from actors.build import broker_for
from actors.logs import log_options
from engine.app import App
from engine.settings import load_settings
from engine.telemetry import logging
from engine.telemetry.events import emit

app = App(load_settings().settings)
logging.configure(log_options(app.settings, os.environ.get("TIDEGATE_FLEET", "worker")), clock=app.system)
app.watch_policies()
broker = broker_for(app)
emit("worker.started", process=os.environ.get("TIDEGATE_FLEET", "worker"))
