"""Opens the application for one command: settings, the addresses of running services, and a tidy end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from engine.app import App
from engine.errors import ServiceUnreachable
from engine.local.addresses import Urls
from engine.local.services import LocalServices
from engine.settings import LoadedSettings, Settings, load_settings
from engine.stores.migrate import migrate_mongo, migrate_search
from engine.telemetry.events import emit

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
InWorkspace = Annotated[
    str | None, typer.Option("--workspace", "-w", help="Its workspace, where names are not unique.")
]


def settings_of(context: typer.Context) -> Settings:
    """What the main command loaded, or the settings of this folder."""
    loaded = context.find_object(LoadedSettings) or load_settings()
    return loaded.settings


def addressed(settings: Settings) -> Settings:
    """The settings with the addresses of local services filled in. Raises `ServiceUnreachable` where one is missing."""
    return with_urls(settings, LocalServices.of(settings).running())


def with_urls(settings: Settings, urls: Urls) -> Settings:
    """The settings with these addresses."""
    services = settings.services.model_copy(
        update={
            "mongo_url": SecretStr(urls.mongo_url),
            "broker_url": SecretStr(urls.broker_url),
            "cache_url": SecretStr(urls.cache_url),
            "elastic_url": SecretStr(urls.elastic_url) if urls.elastic_url else None,
        }
    )
    return settings.model_copy(update={"services": services})


@contextmanager
def opened(context: typer.Context) -> Iterator[App]:
    """The application for one command, closed afterwards."""
    app = App(addressed(settings_of(context)))
    try:
        yield app
    finally:
        app.close()


def show_json(document: Any) -> None:  # whatever orjson-like values a command has
    """One JSON document on stdout."""
    json.dump(document, sys.stdout, default=str)
    sys.stdout.write("\n")


def show_table(title: str, columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """A table for people on stdout."""
    table = Table(*columns, title=title or None, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console().print(table)


def say(text: str) -> None:
    """A line about progress, on stderr."""
    sys.stderr.write(f"{text}\n")


def migrate(app: App, *, search_needed: bool = False) -> int:
    """Bring indexes and templates up to date; gives how many MongoDB indexes the engine relies on.

    The engine runs without its search, so one that is away is only told of, unless it is `search_needed`.
    """
    count = migrate_mongo(app.stores.database)
    if app.stores.user_index is not None:
        try:
            migrate_search(app.stores.user_index)
        except ServiceUnreachable as error:
            if search_needed:
                raise
            say(f"{error}; going on without it, tidegate migrate makes its index later")
    emit("schema.migrated", indexes=count)
    return count
