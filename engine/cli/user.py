"""`tidegate user`: show the data of one user, or erase it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.context import AsJson, opened, say, show_json, show_table
from engine.cli.helping import Group
from engine.clock import format_instant
from engine.domain.keys import user_key
from engine.domain.suppression import Suppression
from engine.errors import NotFound, WrongCall
from engine.telemetry.events import emit

if TYPE_CHECKING:
    from engine.app.app import App

Workspace = Annotated[str, typer.Option("--workspace", "-w", help="The workspace.")]
UserId = Annotated[str, typer.Argument(help="The user's id.")]


def mount(app: typer.Typer) -> None:
    """Add the group `user` to `app`."""
    group = typer.Typer(cls=Group, no_args_is_help=True, help="One user.")
    group.command(epilog="Example: tidegate user show hh-1 -w grocer")(show)
    group.command(epilog="Example: tidegate user erase hh-1 -w grocer --yes")(erase)
    group.command(epilog="Example: tidegate user unsuppress hh-1 -w grocer")(unsuppress)
    app.add_typer(group, name="user")


def show(context: typer.Context, user: UserId, workspace: Workspace, as_json: AsJson = False) -> None:
    """Show the document, the enrolments and the latest events of a user."""
    from engine.pipeline.delivery.compose import recipient_of

    with opened(context) as app:
        key = user_key(workspace, user)
        document = app.stores.users.get(key)
        if document is None:
            raise NotFound(f"there is no user {user} in {workspace}")
        enrolments, events = app.stores.enrolments.stays_of(key), app.stores.events.of_user(key)
        address = recipient_of(document)
        suppression = None if address is None else app.stores.suppressions.get(workspace, address)
        uids = {enrolment.campaign for enrolment in enrolments} | ({suppression.campaign} if suppression else set())
        names = {uid: _name(app, uid) for uid in uids}
    if as_json:
        history = [
            {"campaign": names[enrolment.campaign], "entry": enrolment.entry, "state": enrolment.state}
            for enrolment in enrolments
        ]
        shown = None if suppression is None else _suppression(suppression, names)
        show_json({"user": document, "suppressed": shown, "stays": history, "events": events})
        return
    show_table(user, ("", ""), [(name, value) for name, value in document.items() if name not in ("_id", "w", "u")])
    if suppression is not None:
        show_table("the address is suppressed", ("", ""), list(_suppression(suppression, names).items()))
    rows: list[tuple[object, ...]] = [
        (
            names[enrolment.campaign],
            enrolment.entry,
            enrolment.state,
            enrolment.reason or "",
            format_instant(enrolment.entered_at),
        )
        for enrolment in enrolments
    ]
    show_table("enrolments", ("campaign", "entry", "state", "reason", "entered"), rows)
    shown_events: list[tuple[object, ...]] = [
        (event["n"], format_instant(event["t"]), event.get("p", {})) for event in events
    ]
    show_table("events", ("event", "time", "properties"), shown_events)


def erase(
    context: typer.Context,
    user: UserId,
    workspace: Workspace,
    yes: Annotated[bool, typer.Option("--yes", help="Confirm the erasure, which cannot be undone.")] = False,
) -> None:
    """Erase a user: delete events, memberships and fields, and keep a tombstone.

    Every enrolment of the user ends at its next evaluation.
    """
    if not yes:
        raise WrongCall(f"this erases {user} in {workspace} for good", remedy="give --yes")
    with opened(context) as app:
        key = user_key(workspace, user)
        if app.stores.users.get(key) is None:
            raise NotFound(f"there is no user {user} in {workspace}")
        app.stores.users.delete(key)  # first, so that nothing is sent to an erased user
        events = app.stores.events.erase([key])
        lists = app.stores.lists(app.campaign_cache.catalogue(workspace)).erase(key)
        app.stores.enrolments.make_due(key, app.clock.campaign_now())
        if app.search_indexer is not None:
            app.search_indexer.keys([key])
        app.stores.wakeup.ring()
    say(f"{user} is erased: {events} events, {lists} memberships")


def unsuppress(context: typer.Context, user: UserId, workspace: Workspace) -> None:
    """Lift the suppression of a user's address, which was suppressed because a mail to it bounced."""
    with opened(context) as app:
        document = app.stores.users.get(user_key(workspace, user))
        if document is None:
            raise NotFound(f"there is no user {user} in {workspace}")
        from engine.pipeline.delivery.compose import recipient_of

        address = recipient_of(document)
        if address is None:
            raise WrongCall(f"{user} has no usable address", remedy="import one; a new address is not suppressed")
        lifted = app.stores.suppressions.lift(workspace, address)
        if lifted:
            emit("address.restored", workspace=workspace, user=user, reason="by_hand")
    say(f"mails to the address of {user} are sent again" if lifted else f"the address of {user} was not suppressed")


def _suppression(suppression: Suppression, names: Mapping[str, str]) -> dict[str, object]:
    since = format_instant(suppression.since)
    return {
        "reason": suppression.reason,
        "since": since,
        "campaign": names[suppression.campaign],
        "message": suppression.message,
    }


def _name(app: App, uid: str) -> str:
    record = app.stores.campaigns.get(uid)
    return uid if record is None else record.name
