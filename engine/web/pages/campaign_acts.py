"""What one does to a campaign: each act has a page that asks, and a form that does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from engine.domain.access import Role
from engine.domain.campaign import CampaignRecord
from engine.errors import WrongCall
from engine.pipeline.control.expected_audience import require_audience
from engine.pipeline.control.replay import replay
from engine.pipeline.insight.unserved import unserved
from engine.web.audit import acting
from engine.web.page import Call, Page, Reach
from engine.web.pages.campaign import ACTS, find, path_of, planned

REASON: Final = 200
"""Characters of a reason."""


@dataclass(frozen=True, slots=True)
class Act:
    """One act: the question, what happens, and the function that does it and returns a sentence about the result."""

    question: str
    text: str
    button: str
    do: Callable[[Call, CampaignRecord], str]
    danger: bool = False


def _launch(call: Call, record: CampaignRecord) -> str:
    text = call.form.get("expect", "").replace(",", "").strip()
    if not text.isascii() or not text.isdigit():
        raise WrongCall("confirm the launch with the number of users that you expect", remedy="the plan shows it")
    require_audience(call.app.plans.plan(record).audience, int(text[:12]))
    moved = call.app.commands.launch(record)
    missing = unserved(call.app.policies, call.app.liveness, moved)
    warning = f"; it cannot progress: for 10 s there has been {', '.join(missing)}" if missing else ""
    return f"it is launched{warning}"


def _pause(call: Call, record: CampaignRecord) -> str:
    why = " ".join(call.form.get("reason", "").split())[:REASON]
    call.app.commands.pause(record, f"by {call.viewer.name}" + (f": {why}" if why else ""))
    return "it is paused"


def _resume(call: Call, record: CampaignRecord) -> str:
    return f"it is {call.app.commands.resume(record).state.value} again"


def _stop(call: Call, record: CampaignRecord) -> str:
    return f"its intake is ended: it is {call.app.commands.stop(record).state.value}"


def _cancel(call: Call, record: CampaignRecord) -> str:
    call.app.commands.cancel(record)
    return "it is cancelled"


def _replay(call: Call, record: CampaignRecord) -> str:
    app, message = call.app, call.form.get("message", "") or None
    count = replay(app.stores.deliveries, app.commands, app.stores.wakeup, app.clock, record, message)
    return f"{count:,} deliveries are queued again"


DONE: Final[dict[str, Act]] = {
    "launch": Act(
        "Launch {name}?",
        "It goes live at its start time, or at once if that has passed. Confirm it with the number of users that you "
        "expect: it is refused if the audience differs by more than 5 %.",
        "Launch",
        _launch,
    ),
    "pause": Act("Pause {name}?", "From the next batch on nothing is decided and nothing is sent.", "Pause", _pause),
    "resume": Act(
        "Resume {name}?",
        "It goes on where it was paused, and everybody is evaluated again. You accept the failures so far.",
        "Resume",
        _resume,
    ),
    "stop": Act(
        "Stop the intake of {name}?",
        "Nobody enters any more; those who are in it go on to their end. This cannot be undone.",
        "Stop the intake",
        _stop,
        danger=True,
    ),
    "cancel": Act(
        "Cancel {name}?",
        "Every enrolment ends and what is queued is not sent. This cannot be undone.",
        "Cancel the campaign",
        _cancel,
        danger=True,
    ),
    "replay": Act(
        "Replay the failed deliveries of {name}?",
        "They are queued again with the same keys, so nobody gets a message twice.",
        "Replay",
        _replay,
    ),
}


def _asking(name: str) -> Callable[[Call], Response]:
    def ask(call: Call) -> Response:
        record, act = find(call), DONE[name]
        _require_possible(name, record)
        return call.show(
            "act.html",
            title=act.question.format(name=record.name),
            command=_command(name, record),
            act=act,
            name=name,
            record=record,
            base=path_of(record),
            plan=planned(call, record) if name == "launch" else None,
            messages=_messages(record) if name == "replay" else (),
        )

    return ask


def _doing(name: str) -> Callable[[Call], Response]:
    def do(call: Call) -> Response:
        record = find(call)
        labels = {"workspace": record.workspace, "campaign": record.name, "campaign_uid": record.uid}
        with acting(call, name, **labels, message=call.form.get("message") or None):
            _require_possible(name, record)
            told = DONE[name].do(call, record)
        call.site.say(call.viewer, told)
        return call.see(path_of(record))

    return do


def _require_possible(name: str, record: CampaignRecord) -> None:
    if name not in ACTS[record.state]:
        raise WrongCall(f"campaign {record.name} is {record.state}: it cannot be told to {name}")


def _messages(record: CampaignRecord) -> list[str]:
    spec = record.spec if isinstance(record.spec, dict) else {}
    written = spec.get("messages")
    entries = written if isinstance(written, list) else []
    return [str(message["name"]) for message in entries if isinstance(message, dict) and "name" in message]


def _command(name: str, record: CampaignRecord) -> str:
    more = " --expect COUNT" if name == "launch" else ""
    return f"tidegate campaign {name} {record.name} -w {record.workspace}{more}"


_BASE: Final = "/w/{workspace}/campaigns/{name}"
PAGES: Final = tuple(
    page
    for name in DONE
    for page in (
        Page(f"{_BASE}/{name}", _asking(name), Reach.WORKSPACE, Role.OPERATE),
        Page(f"{_BASE}/{name}", _doing(name), Reach.WORKSPACE, Role.OPERATE, "POST"),
    )
)
