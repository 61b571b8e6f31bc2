"""Runs long-running commands in children of a process that has imported everything.

See `engine/local/processes/prefork.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta
from importlib import import_module
from pkgutil import walk_packages
from typing import TYPE_CHECKING, Final

import typer

from actors.middleware.watchdog import EXIT_UNHEALTHY
from engine.cli.context import addressed, say
from engine.local.processes.prefork import keep_children

if TYPE_CHECKING:
    from engine.settings import Settings


ROOMS: Final = ("campaign", "catalogue", "channels", "domain", "pipeline", "policy", "predicate", "stores", "telemetry")
SEARCH: Final = ("engine.stores.search.user_index", "engine.stores.search.client", "engine.stores.search.log_index")
"""Modules that import Elasticsearch's client, which takes as long as all other imports together."""


def keep(settings: Settings, count: int, *, search: bool = False, wanted: Callable[[], int] | None = None) -> None:
    """Keep `count` processes like this one and exit at a stop request; return in each child, which may open anything.

    `wanted` returns how many there should be from now on (`keep_children`). Raises `ServiceUnreachable` for a missing
    address at once, instead of in one child after another.
    """
    known = addressed(settings).services.elastic_url is not None
    fork(count, settings.engine.stop_timeout, search=search and known, wanted=wanted)


def fork(count: int, patience: timedelta, *, search: bool, wanted: Callable[[], int] | None = None) -> None:
    """Do the same for a command that finds its services later; `search` is true if it will surely use Elasticsearch."""
    import_all(without=() if search else SEARCH)
    code = keep_children(count, patience, say=say, curable=(EXIT_UNHEALTHY,), wanted=wanted)
    if code is not None:
        raise typer.Exit(code)


def import_all(without: Collection[str] = ()) -> None:
    """Import the modules that the engine imports late, so that a newly forked process works at once."""
    for room in ROOMS:
        package = import_module(f"engine.{room}")
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            if module.name not in without and ".parquet" not in module.name:
                import_module(module.name)
