"""`/`: the whole installation in one picture, what is unhealthy and why, and the campaigns that are late."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from engine.domain.lifecycle import CampaignState
from engine.domain.system_view import Late, Level, SystemView, Verdict
from engine.web.page import Call, Page, Reach
from engine.web.scoped_view import scoped

_BAD: Final = (Level.FAILING, Level.STRAINED, Level.UNKNOWN)
LATE_SHOWN: Final = 30
"""Late campaigns that the page shows, the latest first."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A part of the installation that is not well: what it is, and the verdict."""

    what: str
    anchor: str
    verdict: Verdict


def overview(call: Call) -> Response:
    """Show the picture, the troubles, the late campaigns, and tables of all parts."""
    reading = call.site.system.latest()
    view = None if reading.value is None else scoped(reading.value, call.viewer.workspace)
    if view is None:
        call.missing.sentences.append(f"the installation cannot be read: {reading.error or 'no answer yet'}")
    for store in () if view is None else view.missing:
        call.missing.sentences.append(f"{store} does not answer: what it knows is missing here")
    return call.show(
        "overview.html",
        title="Overview",
        command="tidegate map",
        at=reading.at or None,
        view=view,
        drawing="" if view is None else call.site.drawing(view, reading.number, call.viewer.workspace),
        troubles=[] if view is None else sorted(_troubles(view), key=lambda one: _BAD.index(one.verdict.level)),
        late=late_campaigns(call)[:LATE_SHOWN],
        states=[state.value for state in CampaignState],
        sent=0.0 if view is None else sum(channel.rates.get("sent", 0.0) for channel in view.channels),
    )


def _troubles(view: SystemView) -> Iterator[Trouble]:
    groups = (
        ("store", view.stores),
        ("fleet", view.fleets),
        ("producer", view.producers),
        ("lane", view.lanes),
        ("channel", view.channels),
    )
    for kind, nodes in groups:
        for node in nodes:
            if node.verdict.level in _BAD:
                yield Trouble(f"{kind} {node.name}", f"{kind}-{node.name}", node.verdict)


def late_campaigns(call: Call) -> list[Late]:
    """Return the late campaigns that the viewer may see, the latest first; say it if they cannot be read."""
    late, error = call.site.late_of(call.viewer)
    if error:
        call.missing.sentences.append("which campaigns are late cannot be read")
    return late


PAGES: Final = (Page("/", overview, Reach.OWN, every=1.5),)
