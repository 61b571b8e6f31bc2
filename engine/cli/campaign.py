"""`tidegate campaign`: the commands from apply to replay, with preview and test-send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.aggregates import wait_for_aggregates
from engine.cli.campaign_output import (
    capacity_document,
    capacity_rows,
    late_document,
    late_lines,
    path_rows,
    plan_document,
    plan_rows,
    report_document,
    show_report,
    standing_document,
    standing_lines,
)
from engine.cli.context import AsJson, InWorkspace, opened, say, show_json, show_table, where_mails_go
from engine.cli.helping import Group
from engine.cli.preview import living_user, show_preview
from engine.cli.watching import follow
from engine.clock import format_instant, parse_duration
from engine.domain.delivery import Sent
from engine.domain.work import AccessPath
from engine.errors import EngineError, Fault, InvalidSource, WrongCall

if TYPE_CHECKING:
    from engine.campaign.load import LoadedCampaign
    from engine.domain.campaign import CampaignRecord
    from engine.domain.system_view import Late

LISTED = ("workspace", "campaign", "kind", "state", "revision", "starts", "launched", "stuck", "paused_reason", "late")
Watch = Annotated[
    bool,
    typer.Option(
        "--watch", help="Show its progress until nothing of it goes on; code 1 if it is paused, stuck or late."
    ),
]

Name = Annotated[str, typer.Argument(help="The campaign's name.")]


def mount(app: typer.Typer) -> None:
    """Add the group `campaign` to `app`."""
    group = typer.Typer(cls=Group, no_args_is_help=True, help="Campaigns, from their file to their end.")
    group.command(epilog="Example: tidegate campaign apply campaigns/winback.yaml")(apply)
    group.command("list", epilog="Example: tidegate campaign list --json")(list_all)
    group.command(epilog="Example: tidegate campaign show winback")(show)
    group.command(epilog="Example: tidegate campaign plan winback")(plan)
    group.command(epilog="Example: tidegate campaign launch winback --expect 1200")(launch)
    group.command(epilog='Example: tidegate campaign pause winback --reason "wrong price"')(pause)
    for name, what, done in (
        ("resume", "Resume it where it was paused.", "resumed"),
        ("stop", "Let no user in any more; enrolled users continue to their end.", "stopped"),
        ("cancel", "End every enrolment, and skip queued messages.", "cancelled"),
    ):
        group.command(name, help=what, epilog=f"Example: tidegate campaign {name} winback")(_steer(name, done))
    group.command(epilog="Example: tidegate campaign report winback")(report)
    group.command(
        "preview", epilog="Example: tidegate campaign preview winback --message we-miss-you --html mail.html"
    )(show_preview)
    group.command(
        "test-send", epilog="Example: tidegate campaign test-send winback we-miss-you --user hh-1 --to me@x.org"
    )(send_test)
    group.command("replay", epilog="Example: tidegate campaign replay winback --message we-miss-you")(replay)
    app.add_typer(group, name="campaign")


def apply(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="Campaign files.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what it would do.")] = False,
    as_json: AsJson = False,
) -> None:
    """Apply campaign files: all are checked first, and if one is wrong, none is applied."""
    from engine.campaign.load import load_campaign

    with opened(context) as app:
        loaded: list[LoadedCampaign] = []
        faults: list[Fault] = []
        for file in files:
            try:
                loaded.append(load_campaign(file, app.catalogues, app.policies))
            except InvalidSource as error:
                faults += error.faults
        if faults:
            raise InvalidSource(faults)
        for campaign in loaded:
            checked = app.commands.apply(campaign, dry_run=True)  # a refused edit refuses them all
            if not dry_run:
                wait_for_aggregates(app, checked.record)
        results = [app.commands.apply(campaign, dry_run=dry_run) for campaign in loaded]
    if as_json:
        show_json(
            [
                {
                    "campaign": result.record.name,
                    "uid": result.record.uid,
                    "revision": result.record.revision,
                    "created": result.created,
                    "changes": [{"concern": change.concern, "text": change.text} for change in result.changes],
                    "warnings": list(result.warnings),
                }
                for result in results
            ]
        )
        return
    for applied in results:
        record = applied.record
        word = "created" if applied.created else "edited" if applied.changes else "unchanged"
        typer.echo(f"{record.workspace}/{record.name}: {word}, revision {record.revision}")
        for change in applied.changes:
            typer.echo(f"  {change.concern}: {change.text}")
        for warning in applied.warnings:
            say(f"warning: {warning}")


def list_all(context: typer.Context, as_json: AsJson = False) -> None:
    """List every campaign."""
    with opened(context) as app:
        records = app.stores.campaigns.everything()
        late = {one.uid: one for one in app.lateness.late()}
    rows = [_row(record, late.get(record.uid)) for record in records]
    if as_json:
        show_json([dict(zip(LISTED, row, strict=True)) for row in rows])
        return
    show_table("", LISTED, rows)


def _row(record: CampaignRecord, late: Late | None) -> tuple[object, ...]:
    starts = "" if record.starts_at is None else format_instant(record.starts_at)
    launched = "" if record.launched_at is None else format_instant(record.launched_at)
    return (
        record.workspace,
        record.name,
        record.kind,
        record.state.value,
        record.revision,
        starts,
        launched,
        record.stuck or "",
        record.paused_reason or "",
        "" if late is None else late.why,
    )


def show(context: typer.Context, name: Name, workspace: InWorkspace = None, as_json: AsJson = False) -> None:
    """Show a campaign as it was applied."""
    with opened(context) as app:
        record = app.named(name, workspace)
        late = app.lateness.late(uid=record.uid)
    if as_json:
        head = {"uid": record.uid, "state": record.state, "revision": record.revision}
        show_json({**head, **standing_document(record), **late_document(late), "spec": record.spec})
        return
    import yaml

    typer.echo(f"# {record.workspace}/{record.name}  uid {record.uid}  {record.state}  revision {record.revision}")
    for line in (*standing_lines(record), *late_lines(late)):
        typer.echo(f"# {line}")
    from engine.campaign.load import TEXTS

    spec = {key: value for key, value in record.spec.items() if key != TEXTS} if isinstance(record.spec, dict) else {}
    typer.echo(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True).rstrip())


def plan(
    context: typer.Context,
    name: Name,
    workspace: InWorkspace = None,
    path: Annotated[AccessPath | None, typer.Option(help="Plan with this access path.")] = None,
    capacity: Annotated[
        str | None, typer.Option(metavar="30m", help="Show the workers needed to finish in this time.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a launch now would do: the number of users, the access path, the cost, the lane and the slices."""
    within = _duration(capacity) if capacity is not None else None
    with opened(context) as app:
        record = app.named(name, workspace)
        planned = app.plans.plan(record, path)
        needed = None if within is None else app.plans.capacity(planned, within)
    if as_json:
        document = plan_document(record, planned)
        if needed is not None:
            document["capacity"] = [capacity_document(phase) for phase in needed]
        show_json(document)
        return
    show_table(f"{record.workspace}/{record.name}", ("", ""), plan_rows(planned))
    show_table("access paths", ("path", "users read", "time", "MongoDB operations", "why not"), path_rows(planned))
    if needed is not None:
        show_table(
            f"to finish in {capacity}", ("", "workers needed", "available", "finished in"), capacity_rows(*needed)
        )


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise WrongCall(f"--capacity: {error}") from error


def launch(
    context: typer.Context,
    name: Name,
    workspace: InWorkspace = None,
    expect: Annotated[int | None, typer.Option(help="Refuse unless the audience is about this many users.")] = None,
    drift: Annotated[int, typer.Option(help="The allowed deviation from --expect, in percent.")] = 5,
    path: Annotated[AccessPath | None, typer.Option(help="Use this access path, whatever it costs.")] = None,
    watch: Watch = False,
) -> None:
    """Launch a campaign: at its start time, or at once if that has passed."""
    from engine.pipeline.control.expected_audience import require_audience
    from engine.pipeline.insight.unserved import unserved

    with opened(context) as app:
        record = app.named(name, workspace)
        if expect is not None:
            require_audience(app.plans.plan(record).audience, expect, drift)
        moved = app.commands.launch(record, path=path)
        mails, missing = where_mails_go(app.settings), unserved(app.policies, app.liveness, moved)
        when = "at once" if moved.starts_at is None else f"at {format_instant(moved.starts_at)} campaign time"
        say(f"{moved.workspace}/{moved.name} is launched, {when}")
        for line in (mails, *_warning(missing)):
            say(line)
        if watch and (code := follow(app, moved)):
            raise typer.Exit(code)


def _warning(missing: Sequence[str]) -> list[str]:
    if not missing:
        return []
    return [
        f"warning: it cannot progress: for 10 s there has been {', '.join(missing)}",
        "  start them: tidegate up, or tidegate run; tidegate status shows what runs",
    ]


def pause(
    context: typer.Context,
    name: Name,
    workspace: InWorkspace = None,
    reason: Annotated[str | None, typer.Option(help="The reason; every view of the campaign shows it.")] = None,
) -> None:
    """Pause a campaign: no user is decided and no message is sent until it is resumed."""
    with opened(context) as app:
        from engine.pipeline.control.campaign_commands import BY_HAND

        why = BY_HAND if reason is None else f"by hand: {reason}"
        moved = app.commands.pause(app.named(name, workspace), why)
    say(f"{moved.workspace}/{moved.name} is paused")


def _steer(verb: str, done: str) -> Callable[..., None]:
    def command(context: typer.Context, name: Name, workspace: InWorkspace = None) -> None:
        with opened(context) as app:
            steer = {
                "resume": app.commands.resume,
                "stop": app.commands.stop,
                "cancel": app.commands.cancel,
            }[verb]
            moved = steer(app.named(name, workspace))
        say(f"{moved.workspace}/{moved.name} is {done}" + ("" if moved.state == done else f"; it is {moved.state}"))

    return command


def report(
    context: typer.Context, name: Name, workspace: InWorkspace = None, watch: Watch = False, as_json: AsJson = False
) -> None:
    """Show the counts of a campaign, computed from its enrolments; exit code 1 if they do not add up."""
    from engine.telemetry.redaction import Redactor, pseudonym_key

    with opened(context) as app:
        record = app.named(name, workspace)
        code = follow(app, record) if watch else 0
        campaign_report = app.plans.report(app.named(name, workspace))
        late = app.lateness.late(uid=record.uid)
        user = Redactor(pseudonym_key(app.settings.log_folder)).user
    if as_json:
        show_json({**report_document(campaign_report, user), **late_document(late)})
    else:
        show_report(campaign_report, user, late)
    if code or not campaign_report.adds_up:
        raise typer.Exit(1)


def send_test(
    context: typer.Context,
    name: Name,
    message: Annotated[str, typer.Argument(help="The message's name.")],
    user: Annotated[str, typer.Option(help="The user to render it for.")],
    to: Annotated[str, typer.Option(help="The address to send it to.")],
    workspace: InWorkspace = None,
) -> None:
    """Send one message, rendered for a user, to another address; nothing is recorded."""
    from engine.channels.mail.addresses import envelope_address
    from engine.pipeline.delivery.compose import trial

    if envelope_address(to) is None:
        raise WrongCall(f"--to {to} is not an address")
    with opened(context) as app:
        record = app.named(name, workspace)
        document = living_user(app, record.workspace, user)
        now = app.clock.campaign_now()
        bounces = app.settings.email.envelope_from
        envelope = trial(
            app.campaign_cache.of(record),
            message,
            document,
            to,
            now=now,
            sent_at=app.system.system_now(),
            bounces=bounces,
        )
        outcome = app.channel("email").send([envelope])[0]
    if not isinstance(outcome, Sent):
        raise EngineError(
            f"the message was not sent: {outcome}", remedy="tidegate check --origin shows the email settings"
        )
    if app.settings.email.transport == "maildir":
        where = app.settings.maildir / "new"
        say(f"a mail to {to} is in {where}; nothing is sent (email.transport: smtp sends)")
    else:
        say(f"sent to {to}")


def replay(
    context: typer.Context,
    name: Name,
    message: Annotated[str | None, typer.Option(help="Only this message.")] = None,
    workspace: InWorkspace = None,
) -> None:
    """Queue failed deliveries again, with the same keys, for enrolments that are active, completed or failed."""
    from engine.pipeline.control.replay import replay as queue_again

    with opened(context) as app:
        record = app.named(name, workspace)
        count = queue_again(app.stores.deliveries, app.commands, app.stores.wakeup, app.clock, record, message)
    say(f"{count} deliveries are queued again")
