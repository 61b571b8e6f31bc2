"""From a stay, its message and the user as MongoDB has it now, to the mail that is sent, or the reason why none is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from engine.channels.addresses import envelope_address
from engine.channels.message import BadMessage, Mail, Sender, build
from engine.channels.template_values import context
from engine.channels.templates import TemplateFailed, render
from engine.clock import Instant
from engine.domain.delivery import Envelope, Failed
from engine.domain.enrolment import Outgoing
from engine.domain.lifecycle import DeliveryState, SkipReason
from engine.errors import WrongCall
from engine.pipeline.book import Entry
from engine.pipeline.ports import Document


@dataclass(frozen=True, slots=True)
class Skip:
    """It is not sent, and why."""

    reason: SkipReason


Composed: TypeAlias = Envelope | Skip | Failed


def compose(
    entry: Entry, key: str, outgoing: Outgoing, document: Document | None, *, now: Instant, sent_at: Instant
) -> Composed:
    """The mail of one delivery. `document` is the user, read from MongoDB just before: consent is never cached.

    `now` is campaign time, `sent_at` system time, for the Date header.
    """
    message = entry.message(outgoing.message)
    if message is None:
        return Skip(SkipReason.CANCELLED)
    if document is None or document.get("deleted") or document.get("unsubscribed") is True:
        return Skip(SkipReason.SUPPRESSED)
    if message.not_after is not None and now > message.not_after:
        return Skip(SkipReason.TOO_LATE)
    address = document.get("email")
    if not isinstance(address, str) or envelope_address(address) is None:
        return Failed("bad_address" if address else "no_address")
    sender = entry.catalogue.sender
    if sender is None:
        return Failed("no_sender")
    name = entry.record.name
    values = context(document, entry.catalogue, campaign=name, message=message.name, as_of=outgoing.chosen_at)
    html = message.body.lstrip().startswith("<")
    try:
        body = render(message.body, values, html=html)
        text = render(message.text, values) if message.text else ""
        return build(
            Mail(
                key=key,
                campaign=name,
                as_of=outgoing.chosen_at,
                sent_at=sent_at,
                sender=Sender(sender.name, sender.address),
                recipient=address,
                subject=render(message.subject, values),
                html=body if html else "",
                text=text if html else body,
            )
        )
    except TemplateFailed:
        return Failed("template")
    except BadMessage:
        return Failed("bad_message")


def trial(
    entry: Entry, message_name: str, document: Document, recipient: str, now: Instant, sent_at: Instant
) -> Envelope:
    """The mail of a message as `document`'s user would get it, addressed to `recipient`: `campaign test-send`.

    Raises `WrongCall` where it cannot be made.
    """
    message = entry.message(message_name)
    if message is None:
        names = ", ".join(message.name for message in entry.loaded.file.messages)
        raise WrongCall(f"the campaign has no message {message_name}", remedy=f"it has {names}")
    shown = {**document, "email": recipient, "unsubscribed": False, "deleted": None}
    outgoing = Outgoing(message_name, DeliveryState.QUEUED, now, now)
    composed = compose(
        entry, f"test/{entry.record.uid}/{message_name}/{sent_at}", outgoing, shown, now=now, sent_at=sent_at
    )
    if isinstance(composed, Envelope):
        return composed
    raise WrongCall(f"the message cannot be made: {composed.reason}")
