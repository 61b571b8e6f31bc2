"""Compose the mail of a delivery from its message and its user, or say why none is sent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

from engine.campaign.model import Message
from engine.channels.mail.addresses import envelope_address
from engine.channels.mail.mime import BadMessage
from engine.channels.mail.prebuilt import Written
from engine.channels.mail.renderer import ALWAYS, MailRenderer
from engine.channels.templates.errors import TemplateFailed
from engine.clock import Instant
from engine.domain.delivery import Cause, Delivery, Envelope, Failed, Retry
from engine.domain.document import Document
from engine.domain.keys import delivery_key
from engine.domain.lifecycle import SkipReason
from engine.errors import WrongCall
from engine.pipeline.campaigns.compiled_cache import Entry
from engine.pipeline.delivery.message_content import failure_reason, letter_of, sender_of

KEPT: Final = 1_000
"""Messages whose prepared templates a process caches; some 10 kB each."""


@dataclass(frozen=True, slots=True)
class Skip:
    """The delivery is not sent, for `reason`."""

    reason: SkipReason


Composed: TypeAlias = Envelope | Skip | Failed | Retry

NO_SENDER: Final = timedelta(minutes=1)
"""First pause of a mail without a sender. The engine retries it until a person names one."""


def recipient_of(document: Document) -> str | None:
    """Return the envelope address of a user; None if the user has no usable address."""
    address = document.get("email")
    return envelope_address(address) if isinstance(address, str) else None


class Composer:
    """Compose mails; prepare the parts that all users of a message share once per revision of its campaign."""

    def __init__(self, bounces: str = "") -> None:
        """`bounces` is the envelope sender of mails whose campaign and workspace name none; empty means the sender."""
        self._bounces = bounces
        self._mailings: OrderedDict[tuple[str, int, str], MailRenderer] = OrderedDict()

    def projection(self, entry: Entry) -> Mapping[str, int]:
        """Return the projection of the user fields that the mails of a campaign need."""
        paths = {path: 1 for message in entry.loaded.file.messages for path in self.renderer_of(entry, message).paths}
        return dict.fromkeys(ALWAYS, 1) | paths

    def compose(
        self,
        entry: Entry,
        delivery: Delivery,
        document: Document | None,
        *,
        now: Instant,
        sent_at: Instant,
        suppressed: Collection[str] = (),
    ) -> Composed:
        """Return the mail of one delivery, or the reason why it is skipped, fails or waits.

        `document` is the user, read from MongoDB just before, because consent is never cached. `now` is campaign time.
        `sent_at` is system time, for the Date header. `suppressed` holds the addresses of the batch that bounced. A
        reason that lies with the user (consent, address) is a skip, not a failure.
        """
        message = entry.message(delivery.message)
        if message is None:
            return Skip(SkipReason.CANCELLED)
        if document is None or document.get("deleted") or document.get("unsubscribed") is True:
            return Skip(SkipReason.SUPPRESSED)
        if message.not_after is not None and now > message.not_after:
            return Skip(SkipReason.TOO_LATE)
        recipient = recipient_of(document)
        if recipient is None:
            return Skip(SkipReason.NO_ADDRESS)
        if recipient in suppressed:
            return Skip(SkipReason.SUPPRESSED)
        if entry.catalogue.sender is None and sender_of(entry.loaded, message) is None:
            return Retry(NO_SENDER, "no_sender", Cause.US, "the workspace file names no sender")
        mailing = self.renderer_of(entry, message)
        try:
            written = Written(delivery_key(delivery.id, delivery.message), recipient, delivery.chosen_at, sent_at)
            return mailing.write(document, written)
        except TemplateFailed as error:
            return Failed(failure_reason(error, mailing, entry.loaded.texts, message.name))
        except BadMessage as error:
            return Failed(f"bad_message: {error}")

    def renderer_of(self, entry: Entry, message: Message) -> MailRenderer:
        """Return the renderer of a message; it is made again when the revision or the workspace file changes."""
        place = (entry.record.uid, entry.record.revision, message.name)
        known = self._mailings.get(place)
        if known is None or known.catalogue is not entry.catalogue:  # an edit may change its sender or locale
            letter = letter_of(entry.loaded, entry.record.name, message, self._bounces)
            known = self._mailings[place] = MailRenderer(letter, message.name, entry.catalogue)
            while len(self._mailings) > KEPT:
                self._mailings.popitem(last=False)
        return known


def trial(
    entry: Entry,
    message_name: str,
    document: Document,
    recipient: str,
    *,
    now: Instant,
    sent_at: Instant,
    bounces: str = "",
) -> Envelope:
    """Return the mail of a message for `document`'s user, but addressed to `recipient`; used by `campaign test-send`.

    Raises `WrongCall` if the mail cannot be composed.
    """
    message = entry.message(message_name)
    if message is None:
        names = ", ".join(message.name for message in entry.loaded.file.messages)
        raise WrongCall(f"the campaign has no message {message_name}", remedy=f"it has {names}")
    shown = {**document, "email": recipient, "unsubscribed": False, "deleted": None}
    enrolment_id = f"test/{entry.record.uid}/{sent_at}"
    delivery = Delivery(enrolment_id, str(document.get("_id", "")), 0, message_name, now)
    composed = Composer(bounces).compose(entry, delivery, shown, now=now, sent_at=sent_at)
    if isinstance(composed, Envelope):
        return composed
    raise WrongCall(f"the message cannot be made: {composed.reason}")
