"""Before a process of the engine works: do the services that it needs serve it, or what is wrong with them?"""

from __future__ import annotations

from contextlib import closing

from actors.redis_client import connect
from engine.app import App
from engine.cli.opening import require_openable
from engine.stores.probes import probe_broker, probe_mongo


def require_usable(app: App) -> None:
    """Ask MongoDB and the broker; cache and Elasticsearch may join later.

    Raises `ServiceUnreachable` where one does not answer, `OperatorError` where it is not fit, `WrongCall` where its
    address cannot be read.
    """
    require_openable(app.settings, search=False)
    probe_mongo(app.stores.database)
    url = app.settings.services.broker_url
    if url is not None:
        with closing(connect(url.get_secret_value())) as client:
            probe_broker(client, app.settings.services.mongo_database)
