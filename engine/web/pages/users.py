"""`/w/WORKSPACE/users`: find a user by id or address; `/w/WORKSPACE/user?id=ID`: everything about one user.

An id may hold a slash, so it is no part of the path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from starlette.responses import Response

from engine.clock import Instant, format_instant
from engine.domain.document import Document
from engine.domain.enrolment import Enrolment
from engine.domain.keys import user_id_of, user_key
from engine.domain.lifecycle import SKIPPED_BECAUSE, DeliveryState
from engine.domain.suppression import Suppression
from engine.errors import EngineError
from engine.pipeline.delivery.compose import recipient_of
from engine.pipeline.insight.explain_user import Explanation
from engine.web.page import Call, Page, Reach, not_there

ENROLMENTS: Final = 50
"""Enrolments that the page shows and explains, the latest."""
EXPLAINED: Final = 10
"""Campaigns in which the user is explained: each costs an evaluation."""
_WHY: Final = {reason.value: sentence for reason, sentence in SKIPPED_BECAUSE.items()}


@dataclass(frozen=True, slots=True)
class Delivered:
    """One message of an enrolment: how it ended and why, and the search for its log lines."""

    message: str
    state: str
    reason: str
    at: Instant
    attempts: int
    story: str


@dataclass(frozen=True, slots=True)
class Stay:
    """One enrolment as the page shows it, with what an evaluation would decide now."""

    campaign: str
    enrolment: Enrolment
    deliveries: tuple[Delivered, ...]
    explanation: Explanation | None
    why_not: str


def search(call: Call) -> Response:
    """Show the users with an id or an address; go to the one user with such an id."""
    workspace, text = call.part("workspace"), call.asked("q").strip()
    found: list[str] = []
    note = ""
    if text:
        if call.read("MongoDB", "the user", lambda: call.app.stores.users.get(user_key(workspace, text))) is not None:
            return call.see(path_of(workspace, text))
        if "@" in text:
            try:
                catalogue = call.app.campaign_cache.catalogue(workspace)
                found = [user_id_of(key) for key in call.app.user_finder.by_address(catalogue, text)]
            except EngineError as error:
                note = str(error)
    return call.show(
        "users.html",
        title=f"Users of {workspace}",
        command=f"tidegate user show ID -w {workspace}",
        workspace=workspace,
        text=text,
        found=[(one, path_of(workspace, one)) for one in found],
        note=note,
    )


def path_of(workspace: str, user: str) -> str:
    """Return the address of a user's page."""
    return f"/w/{workspace}/user?id={quote(user, safe='')}"


def user(call: Call) -> Response:
    """Show one user."""
    app, workspace, name = call.app, call.part("workspace"), call.asked("id")
    if not name:
        return call.see(f"/w/{workspace}/users")
    key = user_key(workspace, name)
    document = app.stores.users.get(key)
    if document is None:
        raise not_there(f"user {name} in {workspace}")
    enrolments = call.read("MongoDB", "the enrolments", lambda: app.stores.enrolments.stays_of(key)) or []
    enrolments = sorted(enrolments, key=lambda one: one.entered_at, reverse=True)[:ENROLMENTS]
    events = call.read("MongoDB", "the events", lambda: app.stores.events.of_user(key)) or []
    address = recipient_of(document)
    suppressed = None
    if address is not None:
        suppressed = call.read("MongoDB", "the suppression", lambda: app.stores.suppressions.get(workspace, address))
    return call.show(
        "user.html",
        title=f"User {name}",
        command=f"tidegate user show {name} -w {workspace}",
        workspace=workspace,
        user=name,
        fields=sorted(_flat(document)),
        suppressed=_suppressed(suppressed),
        stays=_stays(call, name, enrolments),
        events=[(str(one["n"]), format_instant(one["t"])[:19], str(one.get("p", {}))) for one in events],
    )


def _stays(call: Call, name: str, enrolments: list[Enrolment]) -> list[Stay]:
    uids = {one.campaign for one in enrolments}
    records = {}
    for uid in uids:
        record = call.read("MongoDB", "the campaigns", lambda uid=uid: call.app.stores.campaigns.get(uid))  # type: ignore[misc]
        if record is not None:
            records[uid] = record
    explained: dict[str, tuple[Explanation | None, str]] = {}
    for uid in [uid for uid in dict.fromkeys(one.campaign for one in enrolments) if uid in records][:EXPLAINED]:
        try:
            explained[uid] = call.app.explainer.run(records[uid], name), ""
        except EngineError as error:
            explained[uid] = None, str(error)
    return [
        Stay(
            records[one.campaign].name if one.campaign in records else one.campaign,
            one,
            tuple(_deliveries(one, records[one.campaign].name if one.campaign in records else "", name)),
            *explained.get(one.campaign, (None, "")),
        )
        for one in enrolments
    ]


def _deliveries(enrolment: Enrolment, campaign: str, user_id: str) -> list[Delivered]:
    story = quote(f"campaign:{campaign} user:{user_id}", safe="")
    done = [
        Delivered(
            one.message,
            one.state.value,
            _WHY.get(one.reason or "", one.reason or "") if one.state is DeliveryState.SKIPPED else one.reason or "",
            one.at,
            one.attempts,
            story,
        )
        for one in enrolment.settled
    ]
    going = enrolment.outgoing
    if going is not None:
        done.append(Delivered(going.message, str(going.state), "in progress", going.chosen_at, going.attempts, story))
    return done


_OWN: Final = frozenset({"_id", "w", "u", "h", "k", "rev", "changed"})
"""Parts of a user's document that only the engine uses."""
_PARTS: Final = {"a": "", "g": " (aggregate)", "e": " (events)"}
"""Parts whose fields people know by their own names, with what is said behind them."""


def _flat(document: Document) -> list[tuple[str, str]]:
    """Return the fields of a user's document as lines, without the engine's own."""
    rows: list[tuple[str, str]] = []
    for name, value in document.items():
        if name in _OWN:
            continue
        if isinstance(value, dict):
            behind = _PARTS.get(name)
            rows += [
                (f"{name}.{one}" if behind is None else f"{one}{behind}", str(held)) for one, held in value.items()
            ]
        else:
            rows.append((name, str(value)))
    return rows


def _suppressed(found: Suppression | None) -> str:
    if found is None:
        return ""
    return f"mails to the address are suppressed since {format_instant(found.since)[:19]}: {found.reason}"


PAGES: Final = (
    Page("/w/{workspace}/users", search, Reach.WORKSPACE),
    Page("/w/{workspace}/user", user, Reach.WORKSPACE),
)
