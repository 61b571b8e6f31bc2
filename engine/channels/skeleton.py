"""The skeleton of a message's mail: what is the same for all its users is made once, the rest is put in for each.

Its bytes are those of `message.build` for the rendered message, whatever a user's values are (a property test says so).
How much is saved depends on them: short ASCII words go into finished bytes; other words into a finished text part;
what HTML had to escape, and what is empty, is read and laid out anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from engine.channels.addresses import envelope_address
from engine.channels.message import (
    LONGEST_LINE,
    Sender,
    both,
    date_of,
    fingerprint,
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
_PRINT: Final = b"%(print)b"
"""The place of the delivery's fingerprint."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What a workspace's user is written: a message's templates (`text` may be empty), who sends it, and for what."""

    sender: Sender
    campaign: str
    subject: str
    body: str
    text: str


class Written(NamedTuple):
    """When and for what one mail is made: its delivery key, an envelope address, campaign time and system time."""

    key: str
    recipient: str
    as_of: Instant
    sent_at: Instant


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

    @property
    def finished(self) -> list[bytes]:
        """The part as bytes, cut at its slots; empty where what is put in decides on its encoding."""
        return self._bytes

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
        self._from = mailbox(letter.sender.name, sender, "From")
        self._campaign = words(letter.campaign, "Tidegate-Campaign")
        self._fixed_subject = None if subject.slots else words(subject.literals[0], "Subject")
        self._body_part = _Part("html" if self._html else "plain", body.literals)
        self._text_part = None if text is None else _Part("plain", text.literals)
        around = text_around(body.marked, MARK) if self._html else None
        self._seen = [] if around is None else around[1]
        self._around = None if around is None else _Part("plain", tuple(around[0]))
        fields = {slot.field for one in (subject, body, text) if one for slot in one.slots}
        self._places = {field: _place(field) for field in fields}
        self._whole = self._finished()

    @property
    def reads_ahead(self) -> bool:
        """Whether the text part was read from the HTML once, for all users with words in their values."""
        return self._around is not None

    @property
    def is_finished(self) -> bool:
        """Whether short ASCII words go into finished bytes of the whole mail."""
        return self._whole is not None

    def mail(self, user: Mapping[str, object], values: Mapping[str, object], written: Written) -> Envelope:
        """The envelope for one user; `values` is the templates' whole context. Raises `TemplateFailed`."""
        key = written.key
        subject = self._fixed_subject
        if subject is None:
            subject = words(self._subject.fill(_texts(self._subject, user, values, html=False)), "Subject")
        given = {
            b"to": written.recipient.encode(),
            b"subject": subject,
            b"date": date_of(written.sent_at // 1000),
            b"print": fingerprint(key),
            b"key": shown_key(key),
            b"as_of": instant_of(written.as_of),
        }
        if self._whole is not None and self._put_words(user, given):
            raw = self._whole % given
        else:
            raw = self._head() % given + self._content(given[b"print"], user, values)
        return Envelope(key, self._sender, written.recipient, raw, clean=True)

    def _head(self) -> bytes:
        """The header up to that of the content, with a named place for each thing that differs."""
        return (
            b"From: %b\r\nTo: %%(to)b\r\nSubject: %%(subject)b\r\nDate: %%(date)b\r\nMessage-ID: %b\r\n"
            b"MIME-Version: 1.0\r\nTidegate-Delivery: %%(key)b\r\nTidegate-Campaign: %b\r\n"
            b"Tidegate-As-Of: %%(as_of)b\r\n"
        ) % (_literal(self._from), message_id(_PRINT, self._sender), _literal(self._campaign))

    def _finished(self) -> bytes | None:
        """The whole mail with a named place for each thing that differs; None where a value decides on more."""
        if None in self._places:
            return None  # a filter has to be asked
        main = _named(self._body_part, self._body)
        if not self._html:
            return None if main is None else self._head() + main
        if self._text is not None and self._text_part is not None:
            text = _named(self._text_part, self._text) if any(self._text.literals) else None
        elif self._around is not None:
            seen = [slot for slot, seen in zip(self._body.slots, self._seen, strict=True) if seen]
            text = _named(self._around, Slotted(("",) * (len(seen) + 1), tuple(seen)))
        else:
            text = None
        return None if main is None or text is None else self._head() + both(_PRINT, text, main)

    def _put_words(self, user: Mapping[str, object], given: dict[bytes, bytes]) -> bool:
        """Add the user's values by their fields' names; False where one is more than short ASCII words."""
        for field, place in self._places.items():
            value = user.get(field) if field else None
            if type(value) is not str or len(value) > _LONGEST_WORDS or not value.isascii():
                return False
            if not _WORDS.fullmatch(value):
                return False
            given[place] = value.encode()
        return True

    def _content(self, print_of_key: bytes, user: Mapping[str, object], values: Mapping[str, object]) -> bytes:
        texts = _texts(self._body, user, values, html=self._html)
        plain = _plain(texts)
        main = self._body_part.made(texts, plain)
        if not self._html:
            return main
        if self._text is not None and self._text_part is not None:
            own = _texts(self._text, user, values, html=False)
            if any(own) or any(self._text.literals):
                return both(print_of_key, self._text_part.made(own, _plain(own)), main)
        return both(print_of_key, self._read(texts, plain), main)

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


def _place(field: str | None) -> bytes:
    """The name of a field's place: in hex, so that no name can be taken for another or break the format."""
    return b"user." + (field or "").encode().hex().encode()


def _literal(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")


def _named(one: _Part, slotted: Slotted) -> bytes | None:
    """A finished part with a named place for each slot."""
    if not one.finished:
        return None
    return _woven(
        [_literal(text) for text in one.finished], [b"%%(%b)b" % _place(slot.field) for slot in slotted.slots]
    )


def _joined(literals: tuple[str, ...], texts: list[str]) -> str:
    return "".join(one for pair in zip(literals, [*texts, ""], strict=True) for one in pair)


def _woven(literals: list[bytes], texts: list[bytes]) -> bytes:
    if not texts:
        return literals[0]
    return b"".join(one for pair in zip(literals, [*texts, b""], strict=True) for one in pair)
