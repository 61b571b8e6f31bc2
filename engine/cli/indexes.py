"""`tidegate check --indexes`: the index of every named query and of every predicate, and the missing ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from engine.cli.context import show_json, show_table
from engine.errors import OperatorError

if TYPE_CHECKING:
    from engine.app.app import App
    from engine.pipeline.insight.index_advisor import Advice
    from engine.stores.mongo.index_advisor import NamedQuery

REMEDY = "tidegate migrate creates missing indexes"


def named_queries_served(app: App) -> str:
    """Return a sentence with the number of named queries. Raises `OperatorError` if one has no index."""
    queries = app.stores.advisor.named()
    wrong = [f"{query.name}: {query.problem}" for query in queries if query.problem]
    if wrong:
        raise OperatorError("; ".join(wrong), remedy=REMEDY)
    return f"each of {len(queries)} named queries has its index; check --indexes shows those of campaigns"


def show_indexes(app: App, *, as_json: bool) -> None:
    """Show all queries and predicates; exit with code 1 if a named query has no index."""
    named, advice = app.stores.advisor.named(), app.missing_indexes.advise()
    if as_json:
        show_json(
            {
                "queries": [asdict(query) | {"ok": query.problem is None} for query in named],
                "predicates": [asdict(advised) | {"told": advised.text} for advised in advice],
                "suggested": [{"command": command, "predicates": count} for command, count in _suggested(advice)],
            }
        )
    else:
        _show(named, advice)
    if any(query.problem for query in named):
        raise typer.Exit(1)


def _show(named: Sequence[NamedQuery], advice: Sequence[Advice]) -> None:
    rows: list[tuple[object, ...]] = [
        (query.name, query.index, query.problem or ("as MongoDB plans it" if query.explained else "exists"))
        for query in named
    ]
    show_table("named queries", ("query", "index", ""), rows)
    typer.echo("\npredicates of campaigns")
    for advised in advice:
        typer.echo(f"campaign {advised.workspace}/{advised.campaign}: {advised.text}")
    if not advice:
        typer.echo("there is no applied campaign that has not ended")
    suggested = _suggested(advice)
    if suggested:
        typer.echo("\nto create the missing ones, in mongosh:")
    for command, count in suggested:
        typer.echo(f"{command}  // {count} predicate{'s' if count > 1 else ''}")


def _suggested(advice: Sequence[Advice]) -> list[tuple[str, int]]:
    """Return the commands that create missing indexes, each with its number of predicates; largest number first."""
    counts: defaultdict[str, int] = defaultdict(int)
    for advised in advice:
        if advised.index is not None:
            keys = ", ".join(f'"{key}": 1' for key in advised.index)
            counts[f"db.users.createIndex({{{keys}}})"] += 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
