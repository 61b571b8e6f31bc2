"""`tidegate policy`: check, show, diff, history, route and simulate."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.console import Console
from rich.table import Table

from engine.campaign.load import load_campaign
from engine.clock import format_instant
from engine.errors import NotFound, WrongCall
from engine.policy.difference import Difference, Governed, differences, governed, shares
from engine.policy.load import load_policies, load_policies_with
from engine.policy.models import CampaignKind, Cost, LaneKind
from engine.policy.policyset import CampaignFacts, PolicySet
from engine.predicate.workspace import read_workspaces
from engine.routing import route
from engine.settings import LoadedSettings, Settings, load_settings

History: TypeAlias = Callable[[typer.Context], Sequence[Mapping[str, object]]]
"""Recorded versions, the latest first: `_id`, `first_used_at` (ms) and `content` (what `PolicySet.plain` told)."""

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def mount(app: typer.Typer, history: History) -> None:
    """Add the group `policy` to `app`; `history` is asked only by the commands that need it."""
    group = typer.Typer(no_args_is_help=True, help="What steers: lanes, fleets and profiles.")
    group.command(epilog="Example: tidegate policy check policies/profiles/slow.yaml")(check)
    group.command(epilog="Example: tidegate policy show lifecycle")(show)
    group.command(epilog="Example: tidegate policy route campaigns/winback.yaml")(_route)
    group.command("route", epilog="Example: tidegate policy route campaigns/winback.yaml")(_route)
    group.command(epilog="Example: tidegate policy simulate --with edited/policies")(simulate)
    app.add_typer(group, name="policy")


