"""From a delivery, its message and the user as MongoDB has it now, to the mail that is sent, or why none is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

from engine.campaign.model import Message
from engine.channels.addresses import envelope_address
from engine.channels.mailing import ALWAYS, Mailing
from engine.channels.message import BadMessage
from engine.channels.skeleton import Written
from engine.channels.template_errors import TemplateFailed
from engine.clock import Instant
from engine.domain.delivery import Cause, Delivery, Envelope, Failed, Retry
from engine.domain.document import Document
from engine.domain.keys import delivery_key
from engine.domain.lifecycle import SkipReason
from engine.errors import WrongCall
from engine.pipeline.book import Entry
from engine.pipeline.letterhead import failure_reason, letter_of, sender_of

KEPT: Final = 1_000
"""Messages whose templates are kept ready in a process: some 10 kB each."""


@dataclass(frozen=True, slots=True)
class Skip:
    """It is not sent, and why."""

    reason: SkipReason


Composed: TypeAlias = Envelope | Skip | Failed | Retry

NO_SENDER: Final = timedelta(minutes=1)
"""How long a mail waits that has no sender: until a person names one."""


def recipient_of(document: Document) -> str | None:
    """The envelope address of a user; None where there is none that could be used."""
    address = document.get("email")
    return envelope_address(address) if isinstance(address, str) else None


class Composing:
    """Composes mails; what is the same for all users of a message is made once per revision of its campaign."""

    def __init__(self, bounces: str = "") -> None:
        """`bounces` is the envelope sender of mails whose campaign and workspace name none; empty: the sender."""
        self._bounces = bounces
        self._mailings: OrderedDict[tuple[str, int, str], Mailing] = OrderedDict()

    def projection(self, entry: Entry) -> Mapping[str, int]:
        """What mails of a campaign need of a user document."""
        paths = {path: 1 for message in entry.loaded.file.messages for path in self._mailing(entry, message).paths}
        return dict.fromkeys(ALWAYS, 1) | paths

    def compose(
        self,
        entry: Entry,
        one: Delivery,
        document: Document | None,
        *,
        now: Instant,
        sent_at: Instant,
        suppressed: Collection[str] = (),
    ) -> Composed:
        """The mail of one delivery. `document` is the user, read from MongoDB just before: consent is never cached.

        `now` is campaign time, `sent_at` system time, for the Date header; `suppressed` are addresses of the batch that
        bounced. What is the user's own (consent, address) is a skip and no failure.
        """
        message = entry.message(one.message)
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
        mailing = self._mailing(entry, message)
        try:
            written = Written(delivery_key(one.id, one.message), recipient, one.chosen_at, sent_at)
            return mailing.write(document, written)
        except TemplateFailed as error:
            return Failed(failure_reason(error, mailing, entry.loaded.texts, message.name))
        except BadMessage as error:
            return Failed(f"bad_message: {error}")

    def _mailing(self, entry: Entry, message: Message) -> Mailing:
        place = (entry.record.uid, entry.record.revision, message.name)
        known = self._mailings.get(place)
        if known is None or known.catalogue is not entry.catalogue:  # a workspace's sender and locale may be edited
            letter = letter_of(entry.loaded, entry.record.name, message, self._bounces)
            known = self._mailings[place] = Mailing(letter, message.name, entry.catalogue)
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
    """The mail of a message as `document`'s user would get it, addressed to `recipient`: `campaign test-send`.

    Raises `WrongCall` where it cannot be made.
    """
    message = entry.message(message_name)
    if message is None:
        names = ", ".join(message.name for message in entry.loaded.file.messages)
        raise WrongCall(f"the campaign has no message {message_name}", remedy=f"it has {names}")
    shown = {**document, "email": recipient, "unsubscribed": False, "deleted": None}
    stay = f"test/{entry.record.uid}/{sent_at}"
    one = Delivery(stay, str(document.get("_id", "")), 0, message_name, now)
    composed = Composing(bounces).compose(entry, one, shown, now=now, sent_at=sent_at)
    if isinstance(composed, Envelope):
        return composed
    raise WrongCall(f"the message cannot be made: {composed.reason}")
