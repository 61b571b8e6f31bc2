"""`tidegate explain CAMPAIGN USER`: why this user did or did not get a message, and the time of the next evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from engine.cli.context import AsJson, InWorkspace, opened, show_json
from engine.clock import format_instant
from engine.domain.lifecycle import SKIPPED_BECAUSE, DeliveryState

if TYPE_CHECKING:
    from engine.domain.enrolment import Enrolment
    from engine.pipeline.insight.explain_user import Explanation

_WHY: Final = {reason.value: sentence for reason, sentence in SKIPPED_BECAUSE.items()}


def mount(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: tidegate explain winback hh-1")(explain)


def explain(
    context: typer.Context,
    campaign: Annotated[str, typer.Argument(help="The campaign's name.")],
    user: Annotated[str, typer.Argument(help="The user's id.")],
    workspace: InWorkspace = None,
    as_json: AsJson = False,
) -> None:
    """Explain why a user did or did not get a message.

    It shows each condition with its data, what was sent, and what happens next.
    """
    with opened(context) as app:
        told = app.explainer.run(app.named(campaign, workspace), user)
    if as_json:
        show_json(_document(told))
        return
    lines = [f"{told.user} in {told.record.workspace}/{told.record.name} at {format_instant(told.as_of)}", told.now]
    if told.known and (told.matches or told.audience):
        lines.append("matches the audience:" if told.matches else "does not match the audience:")
        lines += [f"  {leaf.told}  ({leaf.where}; {leaf.data})" for leaf in told.audience]
    if told.address:
        lines.append(told.address)
    for stay in told.stays:
        lines += _stay(stay)
    if told.next_look is not None:
        lines.append(f"next evaluation by time: {format_instant(told.next_look)}")
    typer.echo("\n".join(lines))


def _stay(stay: Enrolment) -> list[str]:
    head = f"enrolment {stay.entry}: entered {format_instant(stay.entered_at)}, {stay.state}"
    if stay.ended_at is not None:
        head += f" ({stay.reason}) at {format_instant(stay.ended_at)}"
    if stay.holdout:
        head += ", in the holdout"
    if stay.converted_at is not None:
        head += f", converted {format_instant(stay.converted_at)}"
    lines = [head]
    for one in stay.settled:
        reason = f" ({one.reason})" if one.reason else ""
        why = _WHY.get(one.reason or "", "") if one.state is DeliveryState.SKIPPED else ""
        end = f"{one.message}: {one.state}{reason} at {format_instant(one.at)}, attempts {one.attempts}"
        lines.append(f"  {end}. {why}" if why else f"  {end}")
    if stay.outgoing is not None:
        chosen = format_instant(stay.outgoing.chosen_at)
        lines.append(f"  {stay.outgoing.message}: {stay.outgoing.state}, chosen at {chosen}")
    return lines


def _document(told: Explanation) -> dict[str, object]:
    return {
        "campaign": told.record.name,
        "workspace": told.record.workspace,
        "state": told.record.state,
        "stuck": told.record.stuck,
        "paused_reason": told.record.paused_reason,
        "user": told.user,
        "as_of": format_instant(told.as_of),
        "known": told.known,
        "matches": told.matches,
        "now": told.now,
        "next_look": None if told.next_look is None else format_instant(told.next_look),
        "address": told.address,
        "audience": [
            {
                "where": leaf.where,
                "leaf": leaf.text,
                "held": leaf.held,
                "wanted": leaf.wanted,
                "fails": leaf.failed,
                "data": leaf.data,
            }
            for leaf in told.audience
        ],
        "stays": [
            {
                "entry": stay.entry,
                "state": stay.state,
                "reason": stay.reason,
                "entered_at": format_instant(stay.entered_at),
                "ended_at": None if stay.ended_at is None else format_instant(stay.ended_at),
                "due_at": None if stay.due_at is None else format_instant(stay.due_at),
                "holdout": stay.holdout,
                "converted_at": None if stay.converted_at is None else format_instant(stay.converted_at),
                "outgoing": None if stay.outgoing is None else stay.outgoing.message,
                "messages": [
                    {"message": one.message, "state": one.state, "reason": one.reason, "at": format_instant(one.at)}
                    for one in stay.settled
                ],
            }
            for stay in told.stays
        ],
    }
