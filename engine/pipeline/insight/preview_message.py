"""Preview a message: make its mail for a real or a sample user. Nothing is sent and nothing is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP

from engine.campaign.load import LoadedCampaign
from engine.campaign.model import Message
from engine.channels.mail.addresses import envelope_address
from engine.channels.mail.mime import BadMessage
from engine.channels.mail.prebuilt import Written
from engine.channels.mail.renderer import MailRenderer
from engine.channels.templates.context import surroundings, user_values
from engine.channels.templates.errors import TemplateFailed
from engine.channels.templates.sample_users import sample_users
from engine.clock import Instant
from engine.domain.delivery import Envelope
from engine.errors import WrongCall
from engine.pipeline.delivery.message_content import failure_reason, letter_of, sender_of

SAMPLE_ADDRESS = "sample@example.org"


@dataclass(frozen=True, slots=True)
class Preview:
    """A mail as people read it: its headers in order, the text part, and the HTML (empty if it has none)."""

    envelope: Envelope
    headers: tuple[tuple[str, str], ...]
    text: str
    html: str


def preview(
    loaded: LoadedCampaign,
    message_name: str | None,
    document: Mapping[str, object] | None,
    *,
    empty: bool = False,
    as_of: Instant,
    sent_at: Instant,
    bounces: str = "",
) -> Preview:
    """Return the mail of a message (None: the first) for the user of `document` (None: a sample user with every field).

    `empty` makes a sample user without any field. Raises `WrongCall` if there is no such message, or if no mail can be
    made.
    """
    message = message_named(loaded, message_name)
    if sender_of(loaded, message) is None:
        raise WrongCall(f"{message.name} has no sender", remedy="add sender: to the workspace's file")
    user = _made_up(loaded, as_of, empty=empty) if document is None else user_values(document, loaded.catalogue)
    mailing = MailRenderer(letter_of(loaded, loaded.file.campaign, message, bounces), message.name, loaded.catalogue)
    values = {**surroundings(loaded.catalogue, loaded.file.campaign, message.name, as_of), "user": user}
    recipient = envelope_address(str(user.get("email", ""))) or SAMPLE_ADDRESS
    written = Written(f"preview/{loaded.file.campaign}/{message.name}", recipient, as_of, sent_at)
    try:
        envelope = mailing.write_whole(values, written)
    except TemplateFailed as error:
        reason = failure_reason(error, mailing, loaded.texts, message.name)
        raise WrongCall(f"the message cannot be made: {reason}") from None
    except BadMessage as error:
        raise WrongCall(f"the message cannot be made: {error}") from None
    return _read(envelope)


def message_named(loaded: LoadedCampaign, name: str | None) -> Message:
    """Return the message with this name; for None, the first. Raises `WrongCall`."""
    messages = loaded.file.messages
    chosen = messages[0] if name is None else next((message for message in messages if message.name == name), None)
    if chosen is None:
        names = ", ".join(message.name for message in messages)
        raise WrongCall(f"the campaign has no message {name}", remedy=f"it has {names}")
    return chosen


def _made_up(loaded: LoadedCampaign, as_of: Instant, *, empty: bool) -> Mapping[str, object]:
    samples = list(sample_users(loaded.catalogue, as_of))
    return samples[1 if empty else 0].values


def _read(envelope: Envelope) -> Preview:
    message = message_from_bytes(envelope.raw, policy=SMTP)
    assert isinstance(message, EmailMessage)  # noqa: S101 - the policy makes it one
    alone = [part for part in message.walk() if not part.is_multipart()]
    parts = {part.get_content_subtype(): str(part.get_content()).replace("\r\n", "\n") for part in alone}
    headers = tuple((name, str(value)) for name, value in message.items())
    return Preview(envelope, headers, parts.get("plain", ""), parts.get("html", ""))
