"""`tidegate web`: declares the command; its code is in another module, which imports everything."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.context import LogFormat


def mount(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: tidegate web --port 8400")(web)


def web(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="The address to serve on.  [default: web.host]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="The port; 0 takes a free one.  [default: web.port, or PORT]")
    ] = None,
    log_format: LogFormat = None,
) -> None:
    """Serve the pages: the whole installation in a browser. Several may run; killing one disturbs nothing."""
    from engine.cli.serve_web import web as serve

    serve(context, host=host, port=port, log_format=log_format or "")
