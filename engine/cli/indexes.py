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
    found = app.stores.advisor.named()
    wrong = [f"{one.name}: {one.problem}" for one in found if one.problem]
    if wrong:
        raise OperatorError("; ".join(wrong), remedy=REMEDY)
    return f"each of {len(found)} named queries has its index; check --indexes shows those of campaigns"


def show_indexes(app: App, *, as_json: bool) -> None:
    """Show all queries and predicates; exit with code 1 if a named query has no index."""
    named, advice = app.stores.advisor.named(), app.missing_indexes.advise()
    if as_json:
        show_json(
            {
                "queries": [asdict(one) | {"ok": one.problem is None} for one in named],
                "predicates": [asdict(one) | {"told": one.text} for one in advice],
                "suggested": [{"command": command, "predicates": count} for command, count in _suggested(advice)],
            }
        )
    else:
        _show(named, advice)
    if any(one.problem for one in named):
        raise typer.Exit(1)


def _show(named: Sequence[NamedQuery], advice: Sequence[Advice]) -> None:
    rows: list[tuple[object, ...]] = [
        (one.name, one.index, one.problem or ("as MongoDB plans it" if one.explained else "exists")) for one in named
    ]
    show_table("named queries", ("query", "index", ""), rows)
    typer.echo("\npredicates of campaigns")
    for one in advice:
        typer.echo(f"campaign {one.workspace}/{one.campaign}: {one.text}")
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
    for one in advice:
        if one.index is not None:
            keys = ", ".join(f'"{key}": 1' for key in one.index)
            counts[f"db.users.createIndex({{{keys}}})"] += 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
