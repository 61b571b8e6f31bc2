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
        explanation = app.explainer.run(app.named(campaign, workspace), user)
    if as_json:
        show_json(_document(explanation))
        return
    record = explanation.record
    lines = [
        f"{explanation.user} in {record.workspace}/{record.name} at {format_instant(explanation.as_of)}",
        explanation.now,
    ]
    if explanation.known and (explanation.matches or explanation.audience):
        lines.append("matches the audience:" if explanation.matches else "does not match the audience:")
        lines += [f"  {leaf.sentence}  ({leaf.where}; {leaf.data})" for leaf in explanation.audience]
    if explanation.address:
        lines.append(explanation.address)
    for enrolment in explanation.enrolments:
        lines += _enrolment_lines(enrolment)
    if explanation.next_evaluation is not None:
        lines.append(f"next evaluation by time: {format_instant(explanation.next_evaluation)}")
    typer.echo("\n".join(lines))


def _enrolment_lines(enrolment: Enrolment) -> list[str]:
    head = f"enrolment {enrolment.entry}: entered {format_instant(enrolment.entered_at)}, {enrolment.state}"
    if enrolment.ended_at is not None:
        head += f" ({enrolment.reason}) at {format_instant(enrolment.ended_at)}"
    if enrolment.holdout:
        head += ", in the holdout"
    if enrolment.converted_at is not None:
        head += f", converted {format_instant(enrolment.converted_at)}"
    lines = [head]
    for delivery in enrolment.settled:
        reason = f" ({delivery.reason})" if delivery.reason else ""
        why = _WHY.get(delivery.reason or "", "") if delivery.state is DeliveryState.SKIPPED else ""
        at = format_instant(delivery.at)
        end = f"{delivery.message}: {delivery.state}{reason} at {at}, attempts {delivery.attempts}"
        lines.append(f"  {end}. {why}" if why else f"  {end}")
    if enrolment.outgoing is not None:
        chosen = format_instant(enrolment.outgoing.chosen_at)
        lines.append(f"  {enrolment.outgoing.message}: {enrolment.outgoing.state}, chosen at {chosen}")
    return lines


def _document(explanation: Explanation) -> dict[str, object]:
    return {
        "campaign": explanation.record.name,
        "workspace": explanation.record.workspace,
        "state": explanation.record.state,
        "stuck": explanation.record.stuck,
        "paused_reason": explanation.record.paused_reason,
        "user": explanation.user,
        "as_of": format_instant(explanation.as_of),
        "known": explanation.known,
        "matches": explanation.matches,
        "now": explanation.now,
        "next_look": None if explanation.next_evaluation is None else format_instant(explanation.next_evaluation),
        "address": explanation.address,
        "audience": [
            {
                "where": leaf.where,
                "leaf": leaf.text,
                "held": leaf.held,
                "wanted": leaf.wanted,
                "fails": leaf.failed,
                "data": leaf.data,
            }
            for leaf in explanation.audience
        ],
        "stays": [
            {
                "entry": enrolment.entry,
                "state": enrolment.state,
                "reason": enrolment.reason,
                "entered_at": format_instant(enrolment.entered_at),
                "ended_at": None if enrolment.ended_at is None else format_instant(enrolment.ended_at),
                "due_at": None if enrolment.due_at is None else format_instant(enrolment.due_at),
                "holdout": enrolment.holdout,
                "converted_at": None if enrolment.converted_at is None else format_instant(enrolment.converted_at),
                "outgoing": None if enrolment.outgoing is None else enrolment.outgoing.message,
                "messages": [
                    {
                        "message": delivery.message,
                        "state": delivery.state,
                        "reason": delivery.reason,
                        "at": format_instant(delivery.at),
                    }
                    for delivery in enrolment.settled
                ],
            }
            for enrolment in explanation.enrolments
        ],
    }
