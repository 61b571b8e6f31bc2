"""Commands that run for long work in children of a process that has imported everything (`engine/local/prefork.py`)."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module

import typer

from actors.middleware.watchdog import EXIT_UNHEALTHY
from engine.cli.opening import addressed, say
from engine.local.prefork import keep_children
from engine.settings import Settings


def keep(settings: Settings, count: int) -> None:
    """Keep `count` processes like this one and exit when told to; returns in each of them, which may open anything.

    Raises `ServiceUnreachable` where an address is missing, at once and not in a child again and again.
    """
    elastic = addressed(settings).services.elastic_url is not None
    fork(count, settings.engine.stop_timeout, elastic=elastic)


def fork(count: int, patience: timedelta, *, elastic: bool) -> None:
    """The same for a command that finds its services later; `elastic` tells whether it may open Elasticsearch."""
    if elastic:
        import_module("engine.stores.search_index")  # the stores import it when they open it: 0.8 s that a fork saves
        import_module("engine.stores.connect_elastic")
    code = keep_children(count, patience, say=say, curable=(EXIT_UNHEALTHY,))
    if code is not None:
        raise typer.Exit(code)
