"""`/queue/LANE/replay` and `/drop`: what one does to dead letters; `/gate/set`: a person's own setting of the gate."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final
from urllib.parse import quote

from starlette.responses import Response

from actors.broker.queue_admin import DeadLetter, drop, list_dead, removed, replay
from engine.clock import parse_duration
from engine.domain.access import Role
from engine.domain.gate import Hold
from engine.errors import WrongCall
from engine.pipeline.control.gate_override import override_gate, release_gate
from engine.web.audit import acting
from engine.web.page import Call, Page, Reach
from engine.web.queues import broker_of

SHOWN: Final = 100
"""Dead letters that the page shows, the latest."""


def _letters(call: Call, lane: str) -> list[DeadLetter]:
    broker = broker_of(call.app)
    if lane not in removed(broker, call.app.policies.lanes):
        call.app.policies.lane(lane)
    return list_dead(broker, lane, limit=SHOWN)


def _asking(name: str) -> Callable[[Call], Response]:
    def ask(call: Call) -> Response:
        lane = call.part("lane")
        letters = _letters(call, lane)
        titles = {"replay": f"Replay dead letters of {lane}?", "drop": f"Drop dead letters of {lane}?"}
        command = f"tidegate queue {name} {lane}"
        return call.show("queue_act.html", title=titles[name], command=command, name=name, lane=lane, letters=letters)

    return ask


def _doing(name: str) -> Callable[[Call], Response]:
    def do(call: Call) -> Response:
        lane, ids = call.part("lane"), [key[3:] for key in call.form if key.startswith("id.")]
        with acting(call, f"queue {name}", lane=lane):
            _letters(call, lane)
            if not ids and call.form.get("all") != "yes":
                raise WrongCall("no dead letter was chosen", remedy="choose some, or all of them")
            chosen = None if call.form.get("all") == "yes" else ids
            count = {"replay": replay, "drop": drop}[name](broker_of(call.app), lane, chosen)
        told = "queued again" if name == "replay" else "deleted"
        call.site.say(call.viewer, f"{count} dead letters of {lane} are {told}")
        return call.see(f"/lanes/{quote(lane, safe='')}")

    return do


def ask_gate(call: Call) -> Response:
    """Show the form of a person's own setting."""
    view = call.read("Redis", "the gate", call.app.gate_store.view)
    return call.show("gate_set.html", title="Set the gate by hand", command="tidegate gate set", view=view)


def set_gate(call: Call) -> Response:
    """Set the gate by hand for a while, or end such a setting."""
    word = call.form.get("hold", "")
    why = " ".join(call.form.get("why", "").split())[:200]
    with acting(call, "gate set", reason=word[:20] or None):
        if word == "automatic":
            release_gate(call.app.gate_store)
            told = "the gate's automatic limit is in force again"
        else:
            if word not in set(Hold):
                raise WrongCall("choose one of open, closed, limit and automatic")
            limit = _number(call.form.get("limit", "")) if word == Hold.LIMIT else None
            reason = f"by {call.viewer.name}" + (f": {why}" if why else "")
            override_gate(call.app.gate_store, Hold(word), _lasts(call.form.get("lasts", "")), reason, limit)
            told = f"the gate is set by hand: {word}"
    call.site.say(call.viewer, told)
    return call.see("/gate")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise WrongCall(f"the limit: expected a number, got {text[:20]!r}") from error


def _lasts(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise WrongCall(f"how long: {error}") from error


PAGES: Final = (
    *(
        page
        for name in ("replay", "drop")
        for page in (
            Page(f"/queue/{{lane}}/{name}", _asking(name), Reach.INSTALLATION, Role.OPERATE),
            Page(f"/queue/{{lane}}/{name}", _doing(name), Reach.INSTALLATION, Role.OPERATE, "POST"),
        )
    ),
    Page("/gate/set", ask_gate, Reach.INSTALLATION, Role.OPERATE),
    Page("/gate/set", set_gate, Reach.INSTALLATION, Role.OPERATE, "POST"),
)
