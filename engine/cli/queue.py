"""`tidegate queue`: messages that wait in the lanes, and the dead letters."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.context import AsJson, opened, say, show_json, show_table
from engine.cli.helping import Group
from engine.clock import format_instant

if TYPE_CHECKING:
    from actors.broker.broker import HardenedBroker
    from engine.app.app import App

Lane = Annotated[str, typer.Argument(help="A lane of policies/lanes.yaml.")]
Id = Annotated[list[str] | None, typer.Argument(help="Message ids; default: all.")]


def mount(app: typer.Typer) -> None:
    """Add the group `queue` to `app`."""
    group = typer.Typer(cls=Group, no_args_is_help=True, help="The lanes' queues. The work itself is in MongoDB.")
    group.command("list", epilog="Example: tidegate queue list --json")(list_queues)
    group.command("deadletters", epilog="Example: tidegate queue deadletters fast")(deadletters)
    group.command("replay", epilog="Example: tidegate queue replay fast")(replay_dead)
    group.command("drop", epilog="Example: tidegate queue drop fast")(drop_dead)
    app.add_typer(group, name="queue")


def list_queues(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the depth of each queue, and the open slices that wait in MongoDB for each lane.

    The queue of a removed lane is shown while it holds anything: the clock moves its messages to their new lanes.
    """
    from actors.broker.queue_admin import depths, removed
    from actors.setup import broker_for

    with opened(context) as app:
        broker, waiting = broker_for(app), _open_slices(app)
        gone = set(removed(broker, {*broker.queues, *app.policies.lanes}))
        queues = depths(broker, sorted({*broker.queues, *gone}))
    rows: list[tuple[object, ...]] = [
        (queue.queue, queue.ready, queue.delayed, queue.taken, queue.dead, waiting[queue.queue]) for queue in queues
    ]
    columns = ("queue", "ready", "delayed", "taken", "dead", "slices")
    if as_json:
        show_json([{**dict(zip(columns, row, strict=True)), "removed": row[0] in gone} for row in rows])
        return
    show_table("", columns, [(f"{row[0]} (removed)" if row[0] in gone else row[0], *row[1:]) for row in rows])


def _open_slices(app: App) -> Counter[str]:
    """Count open slices by the lane that the policies in force give them."""
    from engine.pipeline.insight.system_nodes import lane_of
    from engine.pipeline.insight.system_reader import MOST_OPEN

    counted = app.stores.lane_work.open(MOST_OPEN)
    records = app.stores.campaigns.of({one.campaign for one in counted})
    lanes: Counter[str] = Counter()
    for one in counted:
        if one.campaign in records:
            lanes[lane_of(app.policies, records[one.campaign], one)] += one.free + one.held + one.put_off
    return lanes


def _broker_of(app: App, lane: str) -> HardenedBroker:
    """Return the broker. Raises `NotFound` for a lane that neither the policies have nor a queue in Redis is of."""
    from actors.broker.queue_admin import removed
    from actors.setup import broker_for

    broker = broker_for(app)
    if lane not in removed(broker, app.policies.lanes):
        app.policies.lane(lane)
    return broker


def deadletters(context: typer.Context, lane: Lane, as_json: AsJson = False) -> None:
    """List messages that were given up; Redis keeps them for 7 days."""
    from actors.broker.queue_admin import list_dead

    with opened(context) as app:
        letters = list_dead(_broker_of(app, lane), lane)
    rows: list[tuple[object, ...]] = [
        (
            letter.id,
            letter.actor,
            " ".join(map(str, letter.args)),
            format_instant(letter.died_at),
            letter.retries,
            letter.failure,
        )
        for letter in letters
    ]
    columns = ("id", "actor", "arguments", "given up", "retries", "failure")
    if as_json:
        show_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    show_table("", columns, rows)


def replay_dead(context: typer.Context, lane: Lane, ids: Id = None) -> None:
    """Queue dead letters again."""
    from actors.broker.queue_admin import replay

    with opened(context) as app:
        say(f"{replay(_broker_of(app, lane), lane, ids)} messages are queued again")


def drop_dead(context: typer.Context, lane: Lane, ids: Id = None) -> None:
    """Delete dead letters."""
    from actors.broker.queue_admin import drop

    with opened(context) as app:
        say(f"{drop(_broker_of(app, lane), lane, ids)} dead letters are deleted")
