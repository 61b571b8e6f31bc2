"""`tidegate map`: the whole installation in one picture."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from engine.cli.context import AsJson, opened, say, show_json, show_table
from engine.errors import ServiceUnreachable, WrongCall

if TYPE_CHECKING:
    from engine.app.app import App
    from engine.domain.system_view import SystemView

EVERY: Final = 2.0
"""Seconds between two pictures of `--watch`: processes report every two seconds."""
_CLEAR: Final = "\x1b[H\x1b[2J\x1b[3J"


def mount(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("map", epilog="Example: tidegate map --svg map.svg")(show_map)


def show_map(
    context: typer.Context,
    svg: Annotated[
        Path | None, typer.Option("--svg", help="Write the picture as SVG to this file; - is stdout.")
    ] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print the picture as a Mermaid flowchart.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every two seconds, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show lanes, fleets, stores and channels with depth, age, rate and times, and how each of them is.

    The picture is made from the running system and its policies. Exit code 3 if neither MongoDB nor Redis answers.
    """
    if sum((svg is not None, mermaid, as_json)) > 1:
        raise WrongCall("give one of --svg FILE, --mermaid and --json")
    if watch and (svg is not None or mermaid or as_json):
        raise WrongCall("--watch shows tables", remedy="leave out --svg, --mermaid and --json")
    from actors.broker.queue_views import watch_queues

    with opened(context) as app:
        watch_queues(app)
        while True:
            view = _read(app)
            if svg is not None:
                _write(view, svg)
            elif mermaid:
                from engine.pipeline.insight.system_map.text import mermaid as flowchart

                sys.stdout.write(flowchart(view))
            elif as_json:
                from engine.pipeline.insight.system_map.text import document

                show_json(document(view))
            else:
                _print(view, clear=watch and sys.stdout.isatty())
            if not watch:
                return
            sys.stdout.flush()
            time.sleep(EVERY)


def _read(app: App) -> SystemView:
    view = app.system_reader.read()
    if {"mongodb", "broker"} <= {*view.missing}:
        raise ServiceUnreachable(
            "neither MongoDB nor the broker's Redis answers: there is nothing to show", remedy="tidegate check"
        )
    return view


def _write(view: SystemView, file: Path) -> None:
    from engine.pipeline.insight.system_map.svg import svg as drawn

    if str(file) == "-":
        sys.stdout.write(drawn(view))
        return
    file.write_text(drawn(view), encoding="utf-8")
    say(f"the picture is in {file}")


def _print(view: SystemView, *, clear: bool) -> None:
    from engine.pipeline.insight.system_map.text import headline, tables

    if clear:
        sys.stdout.write(_CLEAR)
    typer.echo(headline(view))
    for title, columns, rows in tables(view):
        if rows:
            show_table(title, columns, rows)
