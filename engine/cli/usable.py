"""Checks, before a process of the engine works, that the needed services serve it."""

from __future__ import annotations

from contextlib import closing

from actors.broker.redis_client import connect
from engine.app.app import App
from engine.cli.context import require_openable
from engine.stores.probes import probe_broker, probe_mongo


def require_usable(app: App) -> None:
    """Probe MongoDB and the broker; cache and Elasticsearch may join later.

    Raises `ServiceUnreachable` if one does not answer, `OperatorError` if it is unfit, and `WrongCall` if its address
    cannot be read.
    """
    require_openable(app.settings, search=False)
    probe_mongo(app.stores.database)
    url = app.settings.services.broker_url
    if url is not None:
        with closing(connect(url.get_secret_value())) as client:
            probe_broker(client, app.settings.services.mongo_database)
