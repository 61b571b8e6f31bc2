"""`/`: the whole installation, what is unhealthy, and why."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from engine.web.page import Call, Page, Reach


def overview(call: Call) -> Response:
    """Show the living processes."""
    processes = call.read("MongoDB", "the processes", call.app.liveness.alive)
    return call.show("overview.html", title="Overview", command="tidegate status", processes=processes)


PAGES: Final = (Page("/", overview, Reach.OWN, every=2.0),)
