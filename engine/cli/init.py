"""`tidegate init`: a folder to start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.opening import say
from engine.errors import WrongCall
from engine.shipped import START, shipped_files

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

COPIED = ("Procfile", "policies", "conf/settings.yaml", "conf/schemas", "conf/services", "conf/logs")
"""What is written beside the example; index templates are not, for the engine reads its own."""

NEXT = """next, in {folder}:
  tidegate up                                            leave it running, and in a second terminal:
  tidegate import users data/users.csv --workspace example
  tidegate import events data/orders.csv --workspace example
  tidegate campaign apply campaigns/welcome-back.yaml
  tidegate campaign launch welcome-back                  the mails are in var/maildir/new"""


def mount(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: tidegate init our-campaigns")(init)


def init(
    folder: Annotated[Path, typer.Argument(help="Where; made if missing.")] = Path(),
) -> None:
    """Write a Procfile, policies, settings, an example with users and events; nothing that exists is touched."""
    wanted = files()
    present = [name for name in wanted if (folder / name).exists()]
    if present:
        raise WrongCall(f"{present[0]} exists in {folder} already", remedy="choose an empty folder")
    for name, source in wanted.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(source.read_bytes())
    say(f"{len(wanted)} files are in {folder}")
    say(NEXT.format(folder=folder if folder != Path() else "this folder"))


def files() -> dict[str, Traversable]:
    """Every file that is written, by its path in the new folder."""
    found = dict(shipped_files(START))
    for name in COPIED:
        found |= {f"{name}/{path}".rstrip("/"): source for path, source in shipped_files(name)}
    return found
