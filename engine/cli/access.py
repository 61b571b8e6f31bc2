"""`tidegate access`: who may see the pages, and who may act there."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from engine.cli.context import AsJson, opened, say, show_json, show_table
from engine.cli.helping import Group
from engine.clock import format_instant
from engine.domain.access import Access, Role
from engine.errors import WrongCall

Name = Annotated[str, typer.Argument(help="The name that logs in, or that a token stands for.")]


def mount(app: typer.Typer) -> None:
    """Add the group `access` to `app`."""
    group = typer.Typer(cls=Group, no_args_is_help=True, help="Who may see the pages of `tidegate web`, and act there.")
    group.command(epilog="Example: tidegate access add ann --role operate")(add)
    group.command("list", epilog="Example: tidegate access list --json")(list_all)
    group.command(epilog="Example: tidegate access remove ann")(remove)
    app.add_typer(group, name="access")


def add(
    context: typer.Context,
    name: Name,
    role: Annotated[Role, typer.Option(help="`read` sees everything, `operate` also acts.")],
    workspace: Annotated[
        str | None, typer.Option("--workspace", "-w", help="Only the data of this workspace.  [default: all]")
    ] = None,
    token: Annotated[bool, typer.Option("--token", help="Print a token for a script, instead of a password.")] = False,
) -> None:
    """Add an access. Its password is asked for, or read from stdin; with --token, the token is printed once."""
    secret = "" if token else _password()
    with opened(context) as app:
        known = tuple(app.catalogues)
        if token:
            access, printed = app.access_control.add_token(name, role, workspace, known)
            say(f"{_told(access)}; nobody can read this token again:")
            typer.echo(printed)
            return
        say(_told(app.access_control.add_password(name, role, secret, workspace, known)))


def _password() -> str:
    """Return the password: asked for twice at a terminal, else the first line of stdin."""
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise WrongCall("the password is missing", remedy="give it on stdin, or call this at a terminal")
    return line


def _told(access: Access) -> str:
    where = "all workspaces" if access.workspace is None else f"the workspace {access.workspace}"
    return f"{access.name} may {access.role.value} {where}"


def list_all(context: typer.Context, as_json: AsJson = False) -> None:
    """List every access; without any, `tidegate web` serves its own machine only."""
    with opened(context) as app:
        accesses = app.access_control.everything()
    columns = ("name", "role", "workspace", "by", "created")
    rows = [
        (
            access.name,
            access.role.value,
            access.workspace or ("" if not as_json else None),
            "token" if access.token else "password",
            format_instant(access.created),
        )
        for access in accesses
    ]
    if as_json:
        show_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    show_table("", columns, rows)


def remove(context: typer.Context, name: Name) -> None:
    """Remove an access; its sessions and its token are void within a second."""
    with opened(context) as app:
        app.access_control.remove(name)
    say(f"{name} has no access any more")
