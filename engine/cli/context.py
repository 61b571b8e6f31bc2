"""Opens the application for one command: settings, the addresses of running services, and an orderly close.

A command does not import what it does not use: clients and use cases are imported at their use, so that help and the
everyday commands answer at once (`tests/acceptance/test_cli_imports.py` counts the imports).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from engine.errors import WrongCall

if TYPE_CHECKING:
    from engine.app.app import App
    from engine.local.services.addresses import Urls
    from engine.settings import LoadedSettings, Settings

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
LogFormat = Annotated[
    Literal["people", "json"] | None,
    typer.Option("--log-format", help="Sentences for people, or JSON lines; the log files are JSON in any case."),
]
InWorkspace = Annotated[str | None, typer.Option("--workspace", "-w", help="Its workspace, if names are not unique.")]


@dataclass
class Call:
    """The options of the main command; settings are read only when a command needs them, so help does not read them."""

    file: Path | None = None
    environment: str | None = None
    flags: Mapping[str, object] = field(default_factory=dict)
    dotenv: Path | None = None

    @cached_property
    def loaded(self) -> LoadedSettings:
        """The settings. Raises `InvalidSource` and `WrongCall`."""
        from engine.settings import DOTENV, load_settings

        if self.dotenv is not None and not self.dotenv.exists():
            raise WrongCall(f"--env-file {self.dotenv} does not exist")
        return load_settings(self.file, environment=self.environment, flags=self.flags, dotenv=self.dotenv or DOTENV)


def call_of(context: typer.Context) -> Call:
    """Return the options of the main command, or their defaults."""
    return context.find_object(Call) or Call()


def loaded_of(context: typer.Context) -> LoadedSettings:
    """Return the settings with their origins."""
    return call_of(context).loaded


def settings_of(context: typer.Context) -> Settings:
    """Return the settings."""
    return loaded_of(context).settings


def addressed(settings: Settings) -> Settings:
    """Return the settings with the addresses of local services. Raises `ServiceUnreachable` if one is missing."""
    from engine.local.services.local_services import LocalServices

    return with_urls(settings, LocalServices.of(settings).running())


def require_openable(settings: Settings, *, search: bool = True) -> None:
    """Parse the given addresses, including options, as their drivers do; connect to nothing.

    A process that waits for a service at a wrong address would wait for ever. Set `search` to false to skip importing
    Elasticsearch's client, which takes long. Raises `WrongCall`.
    """
    services = settings.services
    if services.mongo_url is not None:
        from engine.stores.mongo.client import require_mongo_options

        require_mongo_options(services.mongo_url.get_secret_value())
    if services.broker_url is not None:
        from actors.broker.redis_client import connect

        connect(services.broker_url.get_secret_value()).close()
    if services.cache_url is not None:
        from engine.stores.user_cache.connection import cache_client

        cache_client(services.cache_url.get_secret_value()).close()
    if search and services.elastic_url is not None:
        from engine.stores.search.client import elastic_client

        key, ca = services.elastic_api_key, services.elastic_ca
        elastic_client(
            services.elastic_url.get_secret_value(),
            api_key=key.get_secret_value() if key else None,
            ca_certificate=str(ca) if ca else None,
        ).close()


def with_urls(settings: Settings, urls: Urls) -> Settings:
    """Return the settings with these addresses."""
    from pydantic import SecretStr

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
    """Open the application for one command; close it afterwards."""
    from engine.app.app import App

    app = App(addressed(settings_of(context)))
    try:
        yield app
    finally:
        app.close()


def where_mails_go(settings: Settings) -> str:
    """Return one line that names the Maildir or the SMTP server."""
    email = settings.email
    if email.transport == "maildir":
        return f"mails go to the Maildir {settings.maildir}; nothing is sent (email.transport: smtp sends)"
    return f"mails go to the SMTP server {email.host}:{email.port}, TLS {email.starttls}"


def show_json(document: Any) -> None:  # whatever orjson-like values a command has
    """Print one JSON document on stdout."""
    json.dump(document, sys.stdout, default=str)
    sys.stdout.write("\n")


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table for people on stdout."""
    from engine.cli.tables import show

    show(title, columns, rows)


def say(text: str) -> None:
    """Print a progress line on stderr."""
    sys.stderr.write(f"{text}\n")


def migrate(app: App, *, search_needed: bool = False) -> int:
    """Bring indexes and templates up to date; return the number of MongoDB indexes that the engine relies on.

    The engine runs without its search index, and the feed creates it when it starts; `search_needed` creates it here.
    """
    from engine.stores.migrations import migrate_mongo, migrate_search
    from engine.telemetry.events import emit

    count = migrate_mongo(app.stores.database)
    if search_needed and app.stores.user_index is not None:
        migrate_search(app.stores.user_index)
    emit("schema.migrated", indexes=count)
    return count
