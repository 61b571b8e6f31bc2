"""Build the `Letter` of a message: its templates and its sender.

The message's own setting comes first, then its campaign's, then the workspace's, then the engine's settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.campaign.load import LoadedCampaign
from engine.campaign.model import Message
from engine.channels.mail.mime import Sender
from engine.channels.mail.prebuilt import Letter
from engine.channels.mail.renderer import MailRenderer
from engine.channels.templates.errors import TemplateFailed
from engine.domain.template import KeptTexts, Origin, Snippet

LONGEST_REASON: Final = 200
"""Characters of a failure's reason: each delivery stores it, and reports group by it."""


def letter_of(loaded: LoadedCampaign, campaign: str, message: Message, bounces: str = "") -> Letter:
    """Return the `Letter` of a message; `bounces` is the envelope sender if no file sets one."""
    file, catalogue = loaded.file, loaded.catalogue
    own = catalogue.sender
    return Letter(
        sender=sender_of(loaded, message) or Sender("", ""),
        campaign=campaign,
        subject=message.subject,
        body=message.body,
        text=message.text or "",
        html=message.format != "text",
        preheader=message.preheader or "",
        headers=tuple(_headers(file.headers, message.headers).items()),
        reply_to=_reply_to(loaded, message),
        envelope_from=message.envelope_from or file.envelope_from or (own.envelope_from if own else "") or bounces,
        snippets=loaded.texts.named("html"),
        text_snippets=loaded.texts.named("text"),
    )


def sender_of(loaded: LoadedCampaign, message: Message) -> Sender | None:
    """Return the sender of a message; None if no level names an address."""
    own = loaded.catalogue.sender
    name, address = (own.name, own.address) if own is not None else ("", "")
    for word in (loaded.file.sender, message.sender):
        if word is not None:
            name = word.name if word.name is not None else name
            address = word.address if word.address is not None else address
    return Sender(name, address) if address else None


def _reply_to(loaded: LoadedCampaign, message: Message) -> Sender | None:
    word = message.reply_to or loaded.file.reply_to
    if word is not None:
        return Sender(word.name, word.address)
    own = loaded.catalogue.sender
    return Sender("", own.reply_to) if own is not None and own.reply_to else None


def _headers(campaigns: Mapping[str, str], messages: Mapping[str, str]) -> dict[str, str]:
    """Merge the headers of campaign and message; the message's win, and names match in any case."""
    ours = {name.lower() for name in messages}
    return {name: text for name, text in campaigns.items() if name.lower() not in ours} | dict(messages)


def failure_reason(failure: TemplateFailed, mailing: MailRenderer, texts: KeptTexts, message: str) -> str:
    """Return why a mail cannot be made, as a delivery stores it: file, line and cause, without data of the user."""
    return f"template: {failure_place(failure, mailing, texts, message)}: {failure.problem}"[:LONGEST_REASON]


def failure_place(failure: TemplateFailed, mailing: MailRenderer, texts: KeptTexts, message: str) -> str:
    """Return the file (or the part of the campaign file) and the line in which a template failed."""
    part = mailing.part_of(failure)
    if part:
        origin = texts.origins.get((message, part)) or texts.origins.get(("", part)) or Origin(f"{message}.{part}")
    else:
        snippet = _snippet(mailing.snippet_of(failure), texts)
        origin = Origin(message) if snippet is None else snippet.origin
    return f"{origin.file}:{origin.line(failure.source, failure.index)}"


def _snippet(named: tuple[str, str], texts: KeptTexts) -> Snippet | None:
    return next((snippet for snippet in texts.snippets if (snippet.form, snippet.name) == named), None)
