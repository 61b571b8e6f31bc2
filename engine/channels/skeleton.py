"""The skeleton of a message's mail: what is the same for all its users is made once, the rest is put in for each.

Its bytes are those of `message.build` for the rendered message, whatever a user's values are (a property test says so).
How much is saved depends on them: short ASCII words go into finished bytes; other words into a finished text part;
what HTML had to escape, and what is empty, is read and laid out anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from engine.channels.addresses import envelope_address
from engine.channels.message import (
    LONGEST_LINE,
    Sender,
    both,
    date_of,
    instant_of,
    mailbox,
    message_id,
    part,
    shown_key,
    words,
)
from engine.channels.plaintext import text_around, text_of
from engine.channels.template_slots import MARK, Slotted, cut
from engine.clock import Instant
from engine.domain.delivery import Envelope

_LONGEST_WORDS: Final = 100
"""Characters of a value that goes into finished bytes: with it no line grows beyond what may travel as it is."""
_WORDS: Final = re.compile(r"""[^\s&<>"'=\x00-\x1f\x7f-\x9f\ue000]+(?: [^\s&<>"'=\x00-\x1f\x7f-\x9f\ue000]+)*""")
"""Words that neither HTML nor a mail's encoding changes, with single spaces between them."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What a workspace's user is written: a message's templates (`text` may be empty), who sends it, and for what."""

    sender: Sender
    campaign: str
    subject: str
    body: str
    text: str


class _Part:
    """One body part: its head and literals as bytes, where short ASCII words leave it as it is."""

    def __init__(self, kind: str, literals: tuple[str, ...]) -> None:
        self._kind, self._literals = kind, literals
        joined = MARK.join(literals).replace("\0", "")
        self._bytes: list[bytes] = []
        lines = [len(line) + line.count(MARK) * _LONGEST_WORDS for line in joined.split("\n")]
        plain = joined.replace(MARK, "")
        if plain.isascii() and "=_" not in joined and "=" + MARK not in joined and max(lines) <= LONGEST_LINE:
            head = part(kind, "").removesuffix(b"\r\n")  # an empty part still ends its line
            ended = joined if joined.endswith("\n") else joined + "\n"
            self._bytes = [one.encode() for one in ended.replace("\n", "\r\n").split(MARK)]
            self._bytes[0] = head + self._bytes[0]

    def made(self, texts: list[str], plain: list[bytes] | None) -> bytes:
        """The part with `texts` in its slots; `plain` are the same as bytes where they are short ASCII words."""
        if self._bytes and plain is not None:
            return _woven(self._bytes, plain)
        return part(self._kind, _joined(self._literals, texts))


class Skeleton:
    """The skeleton of one letter. Use `skeleton_of`."""

    def __init__(self, letter: Letter, sender: str, subject: Slotted, body: Slotted, text: Slotted | None) -> None:
        self._html = is_html(letter.body)
        self._subject, self._body, self._text = subject, body, text
        self._sender = sender
        self._from = b"From: " + mailbox(letter.sender.name, sender, "From") + b"\r\nTo: "
        campaign = b"\r\nTidegate-Campaign: " + words(letter.campaign, "Tidegate-Campaign") + b"\r\nTidegate-As-Of: "
        self._campaign = campaign
        self._fixed_subject = None if subject.slots else words(subject.literals[0], "Subject")
        self._body_part = _Part("html" if self._html else "plain", body.literals)
        self._text_part = None if text is None else _Part("plain", text.literals)
        around = text_around(body.marked, MARK) if self._html else None
        self._seen = [] if around is None else around[1]
        self._around = None if around is None else _Part("plain", tuple(around[0]))

    @property
    def reads_ahead(self) -> bool:
        """Whether the text part was read from the HTML once, for all users with words in their values."""
        return self._around is not None

    def mail(
        self,
        key: str,
        recipient: str,
        user: Mapping[str, object],
        values: Mapping[str, object],
        as_of: Instant,
        sent_at: Instant,
    ) -> Envelope:
        """The envelope for one user; `recipient` is an envelope address, `values` the templates' whole context.

        Raises `TemplateFailed`.
        """
        subject = self._fixed_subject
        if subject is None:
            subject = words(self._subject.fill(_texts(self._subject, user, values, html=False)), "Subject")
        content = self._content(key, user, values)
        raw = (
            b"%b%b\r\nSubject: %b\r\nDate: %b\r\nMessage-ID: %b\r\nMIME-Version: 1.0\r\nTidegate-Delivery: %b%b%b\r\n%b"
            % (
                self._from,
                recipient.encode(),
                subject,
                date_of(sent_at // 1000),
                message_id(key, self._sender).encode(),
                shown_key(key),
                self._campaign,
                instant_of(as_of),
                content,
            )
        )
        return Envelope(key, self._sender, recipient, raw)

    def _content(self, key: str, user: Mapping[str, object], values: Mapping[str, object]) -> bytes:
        texts = _texts(self._body, user, values, html=self._html)
        plain = _plain(texts)
        main = self._body_part.made(texts, plain)
        if not self._html:
            return main
        if self._text is not None and self._text_part is not None:
            own = _texts(self._text, user, values, html=False)
            if any(own) or any(self._text.literals):
                return both(key, self._text_part.made(own, _plain(own)), main)
        return both(key, self._read(texts, plain), main)

    def _read(self, texts: list[str], plain: list[bytes] | None) -> bytes:
        """The text part that is read from the HTML."""
        if self._around is not None and (plain is not None or all(map(_WORDS.fullmatch, texts))):
            seen = [text for text, seen in zip(texts, self._seen, strict=True) if seen]
            return self._around.made(seen, None if plain is None else [text.encode() for text in seen])
        return part("plain", text_of(self._body.fill(texts)))


def is_html(body: str) -> bool:
    """Whether a message's body is HTML: it begins with a tag."""
    return body.lstrip().startswith("<")


def skeleton_of(letter: Letter) -> Skeleton | None:
    """The skeleton of a letter, or None where it must be rendered as a whole. Raises `TemplateFailed`.

    None: a template with a tag, a body that could come out empty, a sender that is no address.
    """
    html = is_html(letter.body)
    subject, body = cut(letter.subject, html=False), cut(letter.body, html=html)
    text = cut(letter.text, html=False) if letter.text and html else None
    sender = envelope_address(letter.sender.address)
    if subject is None or body is None or sender is None or (letter.text and html and text is None):
        return None
    return Skeleton(letter, sender, subject, body, text) if any(body.literals) else None


def _texts(slotted: Slotted, user: Mapping[str, object], values: Mapping[str, object], *, html: bool) -> list[str]:
    return [slot.text(user, values, html=html) for slot in slotted.slots]


def _plain(texts: list[str]) -> list[bytes] | None:
    """`texts` as bytes, where they are short ASCII words."""
    for text in texts:
        if len(text) > _LONGEST_WORDS or not text.isascii() or not _WORDS.fullmatch(text):
            return None
    return [text.encode() for text in texts]


def _joined(literals: tuple[str, ...], texts: list[str]) -> str:
    return "".join(one for pair in zip(literals, [*texts, ""], strict=True) for one in pair)


def _woven(literals: list[bytes], texts: list[bytes]) -> bytes:
    if not texts:
        return literals[0]
    return b"".join(one for pair in zip(literals, [*texts, b""], strict=True) for one in pair)
