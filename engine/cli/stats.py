"""`tidegate stats`: measurements, and each campaign's evaluations per message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.campaign_output import windows_document
from engine.cli.context import AsJson, opened, show_json, show_table
from engine.clock import format_duration, format_instant, parse_duration
from engine.errors import WrongCall

if TYPE_CHECKING:
    from engine.domain.work import WindowCost
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
        measured_queries, tried = queries(measured), sizes(measured)
        ranked = app.statistics.campaigns(campaigns, workspace)
        cache = app.stores.user_cache
        memory = None if cache is None else cache.memory()
    share = cached(measured_queries)
    if as_json:
        show_json(
            {
                "queries": [_query_document(query) for query in measured_queries],
                "batches": [asdict(batch) for batch in tried],
                "cache": {**asdict(share), "hit_rate": share.hit_rate, "memory": memory and asdict(memory)},
                "campaigns": [_campaign_document(campaign) for campaign in ranked],
            }
        )
        return
    _show_queries(measured_queries)
    _show_sizes(tried)
    _show_cache(share, memory)
    _show_campaigns(ranked)


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise WrongCall(f"--within: {error}") from error


def _show_queries(measured: Sequence[QueryStatistics]) -> None:
    rows: list[tuple[object, ...]] = [
        (
            query.name,
            f"{query.calls:,}",
            f"{query.documents:,}",
            _ms(query.median),
            _ms(query.p95),
            _ms(query.p99),
            _ms(query.worst.seconds),
            query.worst.campaign or "-",
            format_instant(query.worst.at)[:19],
            query.failed or "",
        )
        for query in measured
    ]
    columns = ("query", "calls", "documents", "median ms", "p95", "p99", "worst", "for", "at (UTC)", "failed")
    show_table("named queries", columns, rows)


def _show_sizes(tried: Sequence[SizeStatistics]) -> None:
    rows: list[tuple[object, ...]] = [
        (
            batch.query,
            f"{batch.size:,}",
            f"{batch.batches:,}",
            f"{batch.users:,}",
            _us(batch.median),
            _us(batch.p95),
            f"{batch.chosen} of {batch.processes}" if batch.chosen else "",
        )
        for batch in tried
    ]
    columns = ("query", "size", "batches", "users", "median us/user", "p95 us/user", "chosen by")
    show_table("\nbatch sizes", columns, rows)


def _show_cache(share: CacheStatistics, memory: CacheMemory | None) -> None:
    if share.hit_rate is None:
        line = "no user was read from it"
    else:
        line = f"{share.hit_rate:.2%} of {share.read:,} users came from it"
    if memory is None:
        holds = "it does not answer, or there is none"
    else:
        bound = f"of {memory.limit / 2**20:,.0f} MiB" if memory.limit else "MiB, without a bound"
        holds = f"it holds {memory.used / 2**20:,.1f} {bound}, {memory.evicted:,} keys evicted since it started"
    typer.echo(f"\nuser cache: {line}; {holds}")


def _show_campaigns(ranked: Sequence[CampaignStatistics]) -> None:
    rows: list[tuple[object, ...]] = [
        (
            f"{campaign.record.workspace}/{campaign.record.name}",
            f"{campaign.evaluated:,}",
            f"{campaign.chosen:,}",
            "-" if campaign.each is None else f"{campaign.each:,.1f}",
            format_duration(campaign.window),
            _advice(campaign),
            before_and_after(campaign.windows),
        )
        for campaign in ranked
    ]
    columns = (
        "campaign",
        "users evaluated",
        "messages",
        "evaluations a message",
        "window",
        "advised window",
        "by window",
    )
    show_table("\ncampaigns by users evaluated per message (decided runs of 7 days, and launches)", columns, rows)


def _advice(campaign: CampaignStatistics) -> str:
    if campaign.advice is None:
        return f"too little evidence ({campaign.stretches:,})"
    return f"{format_duration(campaign.advice)} (of {campaign.stretches:,})"


def before_and_after(windows: Sequence[WindowCost]) -> str:
    """Return the evaluations a message under the latest two inactivity windows, e.g. `45d: 9.1, now 30d: 6.4`."""
    shown = [f"{format_duration(c.inactivity)}: {'-' if c.each is None else f'{c.each:,.1f}'}" for c in windows[-2:]]
    return ", now ".join(shown)


def _query_document(query: QueryStatistics) -> dict[str, Any]:
    worst = asdict(query.worst) | {"at": format_instant(query.worst.at)}
    return {
        "query": query.name,
        "calls": query.calls,
        "failed": query.failed,
        "documents": query.documents,
        "median_seconds": query.median,
        "p95_seconds": query.p95,
        "p99_seconds": query.p99,
        "worst": worst,
    }


def _campaign_document(campaign: CampaignStatistics) -> dict[str, Any]:
    return {
        "workspace": campaign.record.workspace,
        "campaign": campaign.record.name,
        "looked_at": campaign.evaluated,
        "messages": campaign.chosen,
        "looked_at_per_message": campaign.each,
        "inactivity": format_duration(campaign.window),
        "inactivity_advised": None if campaign.advice is None else format_duration(campaign.advice),
        "quiet_stretches": campaign.stretches,
        "inactivity_windows": windows_document(campaign.windows),
    }


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"


def _us(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e6:.1f}"
