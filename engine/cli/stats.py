"""`tidegate stats`: measurements, and each campaign's evaluations per message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.context import AsJson, opened, show_json, show_table
from engine.clock import format_duration, format_instant, parse_duration
from engine.errors import WrongCall

if TYPE_CHECKING:
    from engine.pipeline.insight.statistics import CacheStatistics, CampaignStatistics, QueryStatistics, SizeStatistics
    from engine.stores.user_cache.stats import CacheMemory

Within = Annotated[str, typer.Option("--within", help="How far back measurements go, e.g. 1h; they are kept for 7d.")]
Limit = Annotated[int, typer.Option("--campaigns", min=0, help="How many campaigns are ranked.")]


def mount(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: tidegate stats --within 1h")(stats)


def stats(
    context: typer.Context,
    within: Within = "24h",
    campaigns: Limit = 20,
    workspace: Annotated[
        str | None, typer.Option("--workspace", "-w", help="Rank only the campaigns of this workspace.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the times of named queries, batch sizes, the cache's use, and each campaign's evaluations per message.

    Processes write their measurements every 10 s, so the latest seconds are missing.
    """
    from engine.pipeline.insight.statistics import cached, queries, sizes

    with opened(context) as app:
        if workspace is not None:
            app.campaign_cache.catalogue(workspace)  # an unknown one is a mistake, not an empty table
        measured = app.statistics.measured(_duration(within))
        asked, tried = queries(measured), sizes(measured)
        ranked = app.statistics.campaigns(campaigns, workspace)
        cache = app.stores.user_cache
        memory = None if cache is None else cache.memory()
    share = cached(asked)
    if as_json:
        show_json(
            {
                "queries": [_query_document(one) for one in asked],
                "batches": [asdict(one) for one in tried],
                "cache": {**asdict(share), "hit_rate": share.hit_rate, "memory": memory and asdict(memory)},
                "campaigns": [_campaign_document(one) for one in ranked],
            }
        )
        return
    _show_queries(asked)
    _show_sizes(tried)
    _show_cache(share, memory)
    _show_campaigns(ranked)


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise WrongCall(f"--within: {error}") from error


def _show_queries(asked: Sequence[QueryStatistics]) -> None:
    rows: list[tuple[object, ...]] = [
        (
            one.name,
            f"{one.calls:,}",
            f"{one.documents:,}",
            _ms(one.median),
            _ms(one.p95),
            _ms(one.p99),
            _ms(one.worst.seconds),
            one.worst.campaign or "-",
            format_instant(one.worst.at)[:19],
            one.failed or "",
        )
        for one in asked
    ]
    columns = ("query", "calls", "documents", "median ms", "p95", "p99", "worst", "for", "at (UTC)", "failed")
    show_table("named queries", columns, rows)


def _show_sizes(tried: Sequence[SizeStatistics]) -> None:
    rows: list[tuple[object, ...]] = [
        (
            one.query,
            f"{one.size:,}",
            f"{one.batches:,}",
            f"{one.users:,}",
            _us(one.median),
            _us(one.p95),
            f"{one.chosen} of {one.processes}" if one.chosen else "",
        )
        for one in tried
    ]
    columns = ("query", "size", "batches", "users", "median us/user", "p95 us/user", "chosen by")
    show_table("\nbatch sizes", columns, rows)


def _show_cache(share: CacheStatistics, memory: CacheMemory | None) -> None:
    if share.hit_rate is None:
        found = "no user was read from it"
    else:
        found = f"{share.hit_rate:.2%} of {share.read:,} users came from it"
    if memory is None:
        holds = "it does not answer, or there is none"
    else:
        bound = f"of {memory.limit / 2**20:,.0f} MiB" if memory.limit else "MiB, without a bound"
        holds = f"it holds {memory.used / 2**20:,.1f} {bound}, {memory.evicted:,} keys evicted since it started"
    typer.echo(f"\nuser cache: {found}; {holds}")


def _show_campaigns(ranked: Sequence[CampaignStatistics]) -> None:
    rows: list[tuple[object, ...]] = [
        (
            f"{one.record.workspace}/{one.record.name}",
            f"{one.looked_at:,}",
            f"{one.chosen:,}",
            "-" if one.each is None else f"{one.each:,.1f}",
            format_duration(one.window),
            _advice(one),
        )
        for one in ranked
    ]
    columns = ("campaign", "users evaluated", "messages", "evaluations a message", "window", "advised window")
    show_table("\ncampaigns by users evaluated per message (decided runs of 7 days, and launches)", columns, rows)


def _advice(one: CampaignStatistics) -> str:
    if one.advice is None:
        return f"too little evidence ({one.stretches:,})"
    return f"{format_duration(one.advice)} (of {one.stretches:,})"


def _query_document(one: QueryStatistics) -> dict[str, Any]:
    worst = asdict(one.worst) | {"at": format_instant(one.worst.at)}
    return {
        "query": one.name,
        "calls": one.calls,
        "failed": one.failed,
        "documents": one.documents,
        "median_seconds": one.median,
        "p95_seconds": one.p95,
        "p99_seconds": one.p99,
        "worst": worst,
    }


def _campaign_document(one: CampaignStatistics) -> dict[str, Any]:
    return {
        "workspace": one.record.workspace,
        "campaign": one.record.name,
        "looked_at": one.looked_at,
        "messages": one.chosen,
        "looked_at_per_message": one.each,
        "inactivity": format_duration(one.window),
        "inactivity_advised": None if one.advice is None else format_duration(one.advice),
        "quiet_stretches": one.stretches,
    }


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"


def _us(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e6:.1f}"
