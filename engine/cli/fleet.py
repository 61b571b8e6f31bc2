"""`tidegate worker`: one fleet as its `dramatiq` command. Imports little, for it is replaced by that at once."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from actors.fleet import FLEET_VARIABLE, exec_fleet
from engine.errors import NotFound
from engine.local.services import LocalServices
from engine.policy.load import load_policies
from engine.settings import LoadedSettings, load_settings


def mount(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: tidegate worker fast")(worker)


def worker(
    context: typer.Context,
    fleet: Annotated[str, typer.Argument(help="A fleet of policies/lanes.yaml.")],
) -> None:
    """Become the dramatiq command of one fleet: its lanes, processes and threads come from the policies."""
    settings = (context.find_object(LoadedSettings) or load_settings()).settings
    fleets = load_policies(settings.paths.policies).fleets
    if fleet not in fleets:
        raise NotFound(f"there is no fleet {fleet}", remedy=f"fleets are {', '.join(fleets)}")
    urls = LocalServices.of(settings).running()
    environment = {**os.environ, **urls.environment(), FLEET_VARIABLE: fleet}
    exec_fleet(fleets[fleet], environ=environment)
