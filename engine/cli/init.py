"""`tidegate init`: write a folder to start from."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.context import say
from engine.errors import WrongCall
from engine.shipped import START, shipped_files

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

COPIED = ("Procfile", "policies", "conf/settings.yaml", "conf/schemas", "conf/services", "conf/logs")
"""Copied beside the example. Index templates are not copied: the engine reads its own."""

NEXT = (
    ("up", "leave it running, and in a second terminal:"),
    ("import users data/users.csv --workspace example", ""),
    ("import events data/orders.csv --workspace example", ""),
    ("campaign apply campaigns/welcome-back.yaml", ""),
    ("campaign launch welcome-back", "the mails are in var/maildir/new"),
)
"""The commands to type next, each with a note."""


def mount(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: tidegate init our-campaigns")(init)


def init(
    folder: Annotated[Path, typer.Argument(help="The folder; created if it is missing.")] = Path(),
) -> None:
    """Write a Procfile, policies, settings and an example with users and events; existing files are never changed."""
    shipped = files()
    present = [name for name in shipped if (folder / name).exists()]
    if present:
        raise WrongCall(f"{present[0]} exists in {folder} already", remedy="choose an empty folder")
    for name, source in shipped.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(source.read_bytes())
    say(f"{len(shipped)} files are in {folder}")
    typed = program()
    say(f"next, in {folder if folder != Path() else 'this folder'}:")
    for words, note in NEXT:
        say(f"  {typed} {words:<50} {note}".rstrip())


def program() -> str:
    """Return the text to type to call this program: `tidegate` if the shell finds this one so, else its path."""
    own, installed = Path(sys.argv[0]), shutil.which("tidegate")
    if own.name != "tidegate" or not own.exists() or (installed is not None and Path(installed).samefile(own)):
        return "tidegate"
    return str(own.absolute())


def files() -> dict[str, Traversable]:
    """Return every file to write, by its path in the new folder."""
    shipped = dict(shipped_files(START))
    for name in COPIED:
        shipped |= {f"{name}/{path}".rstrip("/"): source for path, source in shipped_files(name)}
    return shipped
