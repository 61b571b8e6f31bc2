"""`tidegate user`: what is known of one user, and how it is erased."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.opening import AsJson, opened, say, show_json, show_table
from engine.clock import format_instant
from engine.domain.keys import user_key
from engine.errors import NotFound, WrongCall

if TYPE_CHECKING:
    from engine.app import App

Workspace = Annotated[str, typer.Option("--workspace", "-w", help="The workspace.")]
UserId = Annotated[str, typer.Argument(help="The user's id.")]


def mount(app: typer.Typer) -> None:
    """Add the group `user` to `app`."""
    group = typer.Typer(no_args_is_help=True, help="One user.")
    group.command(epilog="Example: tidegate user show hh-1 -w grocer")(show)
    group.command(epilog="Example: tidegate user erase hh-1 -w grocer --yes")(erase)
    app.add_typer(group, name="user")


def show(context: typer.Context, user: UserId, workspace: Workspace, as_json: AsJson = False) -> None:
    """Show the document, the stays and the latest events of a user."""
    with opened(context) as app:
        key = user_key(workspace, user)
        document = app.stores.users.get(key)
        if document is None:
            raise NotFound(f"there is no user {user} in {workspace}")
        stays, events = app.stores.enrolments.stays_of(key), app.stores.events.of_user(key)
        names = {stay.campaign: _name(app, stay.campaign) for stay in stays}
    if as_json:
        told = [{"campaign": names[one.campaign], "entry": one.entry, "state": one.state} for one in stays]
        show_json({"user": document, "stays": told, "events": events})
        return
    show_table(user, ("", ""), [(name, value) for name, value in document.items() if name not in ("_id", "w", "u")])
    rows: list[tuple[object, ...]] = [
        (names[one.campaign], one.entry, one.state, one.reason or "", format_instant(one.entered_at)) for one in stays
    ]
    show_table("stays", ("campaign", "entry", "state", "reason", "entered"), rows)
    found: list[tuple[object, ...]] = [(one["n"], format_instant(one["t"]), one.get("p", {})) for one in events]
    show_table("events", ("event", "time", "properties"), found)


def erase(
    context: typer.Context,
    user: UserId,
    workspace: Workspace,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; there is no way back.")] = False,
) -> None:
    """Erase a user: events, memberships and fields go, a tombstone stays, and every stay ends at its next look."""
    if not yes:
        raise WrongCall(f"this erases {user} in {workspace} for good", remedy="say --yes")
    with opened(context) as app:
        key = user_key(workspace, user)
        if app.stores.users.get(key) is None:
            raise NotFound(f"there is no user {user} in {workspace}")
        app.stores.users.delete(key)  # first, so that nothing is sent to what is about to go
        events = app.stores.events.erase([key])
        lists = app.stores.lists(app.book.catalogue(workspace)).erase(key)
        app.stores.enrolments.make_due(key, app.clock.campaign_now())
        if app.indexing is not None:
            app.indexing.keys([key])
        app.stores.bell.ring()
    say(f"{user} is erased: {events} events, {lists} memberships")


def _name(app: App, uid: str) -> str:
    record = app.stores.campaigns.get(uid)
    return uid if record is None else record.name
