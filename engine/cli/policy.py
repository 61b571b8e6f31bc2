"""`tidegate policy`: check, show, diff, history, route and simulate."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from engine.cli.context import settings_of
from engine.cli.helping import Group
from engine.cli.policy_simulate import as_document, forecast_for, show_forecast
from engine.cli.route_evidence import Known, known_of
from engine.cli.tables import show as show_table
from engine.clock import format_instant
from engine.errors import InvalidSource, NotFound, WrongCall

if TYPE_CHECKING:
    from engine.policy.difference import Difference, Governed
    from engine.policy.policyset import CampaignFacts, PolicySet
    from engine.settings import Paths

History: TypeAlias = Callable[[typer.Context], Sequence[Mapping[str, object]]]
"""Recorded versions, the latest first: `_id`, `first_used_at` (ms) and `content` (the result of `PolicySet.plain`)."""

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def mount(app: typer.Typer, history: History) -> None:
    """Add the group `policy` to `app`; only the commands that need `history` call it."""
    group = typer.Typer(cls=Group, no_args_is_help=True, help="The policies: lanes, fleets and profiles.")

    @group.command("diff", epilog="Example: tidegate policy diff 81207b9847b8")
    def _diff(
        context: typer.Context,
        old: Annotated[str, typer.Argument(help="A version or a folder; default: the version recorded last.")] = "",
        new: Annotated[str, typer.Argument(help="A version or a folder; default: the policies' folder.")] = "",
        as_json: Json = False,
    ) -> None:
        """Show the differences between two sets of policies."""
        before = _set_of(old, lambda: history(context))
        after = _set_of(new or str(_paths(context).policies), lambda: history(context))
        _show_differences(before, after, as_json)

    @group.command("history", epilog="Example: tidegate policy history --json")
    def _history(context: typer.Context, as_json: Json = False) -> None:
        """List every version that was in force, the latest first."""
        rows = [(str(version["_id"]), format_instant(_whole(version["first_used_at"]))) for version in history(context)]
        if as_json:
            typer.echo(json.dumps([{"version": version, "first_used_at": at} for version, at in rows]))
        else:
            _table(("version", "in force since"), rows)

    group.command(epilog="Example: tidegate policy check edited/slow.yaml")(check)
    group.command(epilog="Example: tidegate policy show lifecycle")(show)
    group.command("route", epilog="Example: tidegate policy route winback")(show_route)
    group.command(epilog="Example: tidegate policy simulate --edited edited/slow.yaml --days 7")(simulate)
    app.add_typer(group, name="policy")


def check(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="An edited lanes.yaml or profile, or a whole folder.")] = None,
    as_json: Json = False,
) -> None:
    """Check the policies, or show what an edit would change before it is saved.

    It shows the values that differ, the campaigns that get another profile or lane (of the campaign files, and of
    MongoDB if it answers), the lanes that other fleets serve, and what only a restart brings into force.
    """
    from engine.policy.load import load_policies

    folder = _paths(context).policies
    after = _edited(folder, file)
    try:
        before = load_policies(folder) if file is not None else after
    except InvalidSource as error:
        typer.echo(f"the policies in force cannot be compared:\n{error}", err=True)
        before = after
    if file is not None and before.version != after.version:
        from engine.cli.policy_check import show_effects

        show_effects(settings_of(context), before, after, as_json=as_json)
        return
    _show_differences(before, after, as_json, good="valid, and nothing differs" if file else "valid")


def show(
    context: typer.Context,
    profile: Annotated[str, typer.Argument(help="One profile; default: lanes, fleets and all profiles.")] = "",
    as_json: Json = False,
) -> None:
    """Show the policies with every default written out."""
    from engine.policy.load import load_policies

    policies = load_policies(_paths(context).policies)
    if profile and profile not in policies.profiles:
        raise NotFound(f"there is no profile {profile}", remedy=f"profiles are {', '.join(policies.profiles)}")
    content = policies.plain()
    if as_json:
        chosen = policies.profiles[profile].model_dump(mode="json", by_alias=True) if profile else content
        typer.echo(json.dumps({"version": policies.version, "content": chosen}))
        return
    typer.echo(f"version {policies.version}")
    if not profile:
        lanes = policies.lanes.items()
        cells = [
            (n, str(o.kind), str(o.depth), str(policies.room(n)), ", ".join(policies.fleet_names(n))) for n, o in lanes
        ]
        _table(("lane", "kind", "depth", "room", "fleets"), cells)
        if policies.workspaces:
            _table(
                ("workspace", "weight"),
                [(name, f"{weighted.weight:g}") for name, weighted in policies.workspaces.items()],
            )
        for name, table in (("rates", policies.rates), ("gates", policies.gates)):
            limits = {key: one.model_dump(mode="json", exclude_none=True) for key, one in table.items()}
            if limits:
                _table((name, ""), [(key, _flow(value)) for key, value in limits.items()])
    for name, declared in policies.profiles.items():
        if profile in ("", name):
            document = declared.model_dump(mode="json", by_alias=True, exclude_none=True)
            _table((name, ""), [(key, _flow(value)) for key, value in document.items() if key != "profile"])


def show_route(
    context: typer.Context,
    campaign_or_file: Annotated[
        str, typer.Argument(help="A campaign's name, or its file; or give the options instead.")
    ] = "",
    workspace: Annotated[str, typer.Option(help="Its workspace.")] = "",
    campaign: Annotated[str, typer.Option(help="Its name.")] = "",
    kind: Annotated[Literal["one_off", "continuous"], typer.Option(help="How users enter.")] = "continuous",
    cost: Annotated[Literal["quick", "slow"], typer.Option(help="What its audience costs.")] = "quick",
    profile: Annotated[str, typer.Option(help="The profile that it names.")] = "",
    slowed: Annotated[bool, typer.Option("--slowed", help="As if it were measured as slow.")] = False,
    as_json: Json = False,
) -> None:
    """Show which profile governs a campaign, why, and which lanes its slices use.

    With a name, also show the measured speed, as far as MongoDB answers.
    """
    from engine.decisions.routing import SUSPECT
    from engine.policy.load import load_policies
    from engine.policy.models import CampaignKind, Cost
    from engine.policy.policyset import CampaignFacts

    policies = load_policies(_paths(context).policies)
    measured: Known | None = None
    if campaign_or_file:
        facts, measured = _routed(context, policies, campaign_or_file, workspace or None)
    elif workspace and campaign:
        facts = CampaignFacts(workspace, campaign, CampaignKind(kind), Cost(cost), profile or None, slowed)
    else:
        raise WrongCall("no campaign is given", remedy="give its file, or --workspace and --campaign")
    governed = _governed(policies, facts)
    evidence = {} if measured is None else {"measured": measured.document()}
    if as_json:
        typer.echo(json.dumps({**asdict(governed), "cost": facts.cost, "suspect_lane": SUSPECT, **evidence}))
        return
    rows = [
        ("profile", f"{governed.profile} ({governed.why})"),
        ("cost", str(facts.cost)),
        ("decides in", governed.lane),
    ]
    rows += [
        ("urgency", governed.urgency),
        ("weight", f"{governed.weight:g}, its workspace {governed.workspace_weight:g}"),
    ]
    rows += [("delivers in", governed.deliver_lane), ("suspects go to", SUSPECT)]
    rows += [("served by", ", ".join(policies.fleet_names(governed.lane)))]
    rows += [] if measured is None else measured.rows()
    _table((f"{governed.workspace}/{governed.campaign}", ""), rows)


def simulate(
    context: typer.Context,
    edited: Annotated[Path | None, typer.Option(help="An edited file or folder to simulate instead.")] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=7, help="Also replay the slices of the last days, and show their waits.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Route every campaign file, and show each lane's room and how its campaigns share it while all have work.

    With --days, also forecast the waits in each lane from what is recorded.
    """
    from engine.policy.difference import shares
    from engine.policy.load import load_policies

    paths = _paths(context)
    now = load_policies(paths.policies)
    policies = _edited(paths.policies, edited)
    facts = _facts(paths, now, sorted(paths.campaigns.glob("*.yaml")))
    before = {(campaign.workspace, campaign.campaign): _governed(now, campaign) for campaign in facts}
    lanes = shares(_governed(policies, campaign) for campaign in facts)
    document: list[dict[str, object]] = []
    for lane, members in lanes.items():
        for campaign, share in members:
            was = before[campaign.workspace, campaign.campaign]
            moved = was.lane if was.lane != campaign.lane else None
            document.append(
                {**asdict(campaign), "share": round(share, 4), "room": policies.room(lane), "moved_from": moved}
            )
    told = None if days is None else forecast_for(context, now, None if edited is None else policies, days)
    if as_json:
        more = {} if told is None else {"forecast": as_document(told)}
        typer.echo(json.dumps({"version": policies.version, "campaigns": document, **more}))
        return
    keys = ("lane", "room", "campaign", "profile", "urgency", "share", "in_flight", "deliver_lane", "moved_from")
    _table(keys, [tuple("" if row[key] is None else str(row[key]) for key in keys) for row in document])
    if told is not None and days is not None:
        show_forecast(told, days)


def _routed(
    context: typer.Context, policies: PolicySet, name: str, workspace: str | None
) -> tuple[CampaignFacts, Known | None]:
    """Return the facts of a campaign file or of a campaign by name; for a name also what MongoDB knows of it."""
    file, known = Path(name), None
    if not file.is_file():
        known = known_of(context, policies, name, workspace)
        if known.facts is not None:
            return known.facts, known
        file = _paths(context).campaigns / f"{name}.yaml"
    if not file.is_file():
        remedy = "" if known is None else f"its measurement is unknown: {known.unknown}"
        raise NotFound(f"there is no campaign and no file {name}", remedy=remedy)
    return _facts(_paths(context), policies, [file])[0], known


def _edited(folder: Path, file: Path | None) -> PolicySet:
    from engine.policy.load import load_policies

    if file is None:
        return load_policies(folder)
    if not file.exists():
        raise NotFound(f"{file} does not exist")
    return load_policies(file) if file.is_dir() else load_policies(folder, edited=file)


def _facts(paths: Paths, policies: PolicySet, files: Iterable[Path]) -> list[CampaignFacts]:
    from engine.campaign.load import load_campaign
    from engine.catalogue.workspace_file import read_each
    from engine.catalogue.workspace_set import WorkspaceSet

    catalogues = WorkspaceSet(*read_each(paths.workspaces))
    return [load_campaign(file, catalogues, policies).facts for file in files]


def _governed(policies: PolicySet, facts: CampaignFacts) -> Governed:
    from engine.pipeline.insight.policy_effects import governed_by

    return governed_by(policies, facts)


def _set_of(name: str, recorded: Callable[[], Sequence[Mapping[str, object]]]) -> PolicySet:
    """Return the set of a folder, or a recorded version by the start of its name (empty name: the latest)."""
    from engine.policy.load import load_policies
    from engine.policy.policyset import PolicySet

    if name and Path(name).is_dir():
        return load_policies(Path(name))
    matching = [version for version in recorded() if str(version["_id"]).startswith(name)]
    if not matching:
        what = f"no version or folder {name}" if name else "no version recorded yet"
        raise NotFound(f"there is {what}", remedy="tidegate policy history lists the versions")
    content = matching[0]["content"]
    return PolicySet.from_plain(content if isinstance(content, Mapping) else {})


def _show_differences(before: PolicySet, after: PolicySet, as_json: bool, good: str = "nothing differs") -> None:
    from engine.policy.difference import differences

    changes: list[Difference] = differences(before, after)
    if as_json:
        changed = [asdict(difference) for difference in changes]
        typer.echo(json.dumps({"before": before.version, "after": after.version, "differences": changed}))
        return
    typer.echo("\n".join(map(str, changes)) if changes else f"{good} (version {after.version})")


def _paths(context: typer.Context) -> Paths:
    return settings_of(context).paths


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    show_table("", columns, list(rows))


def _flow(value: object) -> str:
    return json.dumps(value) if isinstance(value, list | Mapping) else str(value)


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
