"""`/gate`: how much of MongoDB bulk work may take and why, and what the channels are allowed to send."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from engine.decisions.gate import share
from engine.domain.gate import MONGODB, GateState, limit_in_force
from engine.web.page import Call, Page, Reach


def gate(call: Call) -> Response:
    """Show the gate and the rates."""
    view = call.read("Redis", "the gate", call.app.gate_store.view)
    rule = call.app.policies.gates.get(MONGODB)
    state = GateState() if view is None or view.state is None else view.state
    limit = None
    if view is not None and (rule is not None or view.override is not None):
        limit = limit_in_force(state, view.override)
    wanted = 0 if view is None else sum(member.wanted for member in view.members)
    reading = call.site.system.latest()
    return call.show(
        "gate.html",
        title="Gate and rates",
        command="tidegate gate show",
        view=view,
        rule=rule,
        state=state,
        limit=limit,
        used=0.0 if view is None else sum(member.used for member in view.members),
        members=[
            (one.process, one.id, one.wanted, f"{one.used:.2f}", _share(share(limit, one.wanted, wanted)))
            for one in (() if view is None else view.members)
        ],
        channels=() if reading.value is None else reading.value.channels,
        rates={name: rate.model_dump(mode="json", exclude_none=True) for name, rate in call.app.policies.rates.items()},
    )


def _share(part: float | None) -> str:
    return "any" if part is None else f"{part:.2f}"


PAGES: Final = (Page("/gate", gate, Reach.INSTALLATION, every=1.5),)
