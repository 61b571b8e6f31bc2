"""Opens the application for one command: settings, the addresses of running services, and a tidy end.

What a command does not use it does not import: clients and use cases are imported where they are used, so that help
and the everyday commands answer at once (`tests/acceptance/test_cli_imports.py` counts).
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
    from engine.app import App
    from engine.local.addresses import Urls
    from engine.settings import LoadedSettings, Settings

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
LogFormat = Annotated[
    Literal["people", "json"] | None,
    typer.Option("--log-format", help="Sentences for people, or JSON lines; the log files are JSON in any case."),
]
InWorkspace = Annotated[
    str | None, typer.Option("--workspace", "-w", help="Its workspace, where names are not unique.")
]


@dataclass
class Call:
    """What the main command was told; the settings are read when a command asks for them, not for its help."""

    file: Path | None = None
    environment: str | None = None
    flags: Mapping[str, object] = field(default_factory=dict)
    dotenv: Path | None = None

    @cached_property
    def loaded(self) -> LoadedSettings:
        """The settings. Raises `InvalidSource` and `WrongCall`."""
        from engine.settings import DOTENV, load_settings

        if self.dotenv is not None and not self.dotenv.exists():
            raise WrongCall(f"--env-file {self.dotenv} is not there")
        return load_settings(self.file, environment=self.environment, flags=self.flags, dotenv=self.dotenv or DOTENV)


def call_of(context: typer.Context) -> Call:
    """What the main command was told; its defaults where there was none."""
    return context.find_object(Call) or Call()


def loaded_of(context: typer.Context) -> LoadedSettings:
    """The settings with their origins."""
    return call_of(context).loaded


def settings_of(context: typer.Context) -> Settings:
    """The settings."""
    return loaded_of(context).settings


def addressed(settings: Settings) -> Settings:
    """The settings with the addresses of local services filled in. Raises `ServiceUnreachable` where one is missing."""
    from engine.local.services import LocalServices

    return with_urls(settings, LocalServices.of(settings).running())


def require_openable(settings: Settings, *, search: bool = True) -> None:
    """Read the addresses that are given, options and all, as their drivers do; connects to nothing.

    What waits for a service waits for ever where its address is wrong. `search` is for who has time for the client of
    Elasticsearch, which takes long to import. Raises `WrongCall`.
    """
    services = settings.services
    if services.mongo_url is not None:
        from engine.stores.connect import require_mongo_options

        require_mongo_options(services.mongo_url.get_secret_value())
    if services.broker_url is not None:
        from actors.redis_client import connect

        connect(services.broker_url.get_secret_value()).close()
    if services.cache_url is not None:
        from engine.stores.cache_server import cache_client

        cache_client(services.cache_url.get_secret_value()).close()
    if search and services.elastic_url is not None:
        from engine.stores.connect_elastic import elastic_client

        key, ca = services.elastic_api_key, services.elastic_ca
        elastic_client(
            services.elastic_url.get_secret_value(),
            api_key=key.get_secret_value() if key else None,
            ca_certificate=str(ca) if ca else None,
        ).close()


def with_urls(settings: Settings, urls: Urls) -> Settings:
    """The settings with these addresses."""
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
    """The application for one command, closed afterwards."""
    from engine.app import App

    app = App(addressed(settings_of(context)))
    try:
        yield app
    finally:
        app.close()


def where_mails_go(settings: Settings) -> str:
    """One line: the Maildir, or the SMTP server."""
    email = settings.email
    if email.transport == "maildir":
        return f"mails go to the Maildir {settings.maildir}; nothing is sent (email.transport: smtp sends)"
    return f"mails go to the SMTP server {email.host}:{email.port}, TLS {email.starttls}"


def show_json(document: Any) -> None:  # whatever orjson-like values a command has
    """One JSON document on stdout."""
    json.dump(document, sys.stdout, default=str)
    sys.stdout.write("\n")


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table for people on stdout."""
    from engine.cli.tables import show

    show(title, columns, rows)


def say(text: str) -> None:
    """A line about progress, on stderr."""
    sys.stderr.write(f"{text}\n")


def migrate(app: App, *, search_needed: bool = False) -> int:
    """Bring indexes and templates up to date; gives how many MongoDB indexes the engine relies on.

    The engine runs without its search, and the feed makes its index when it comes; `search_needed` makes it here.
    """
    from engine.stores.migrate import migrate_mongo, migrate_search
    from engine.telemetry.events import emit

    count = migrate_mongo(app.stores.database)
    if search_needed and app.stores.user_index is not None:
        migrate_search(app.stores.user_index)
    emit("schema.migrated", indexes=count)
    return count
