"""The skeleton of a message's mail: build the common parts once, then fill in the values of each user.

A filled skeleton has the same bytes as `mime.build` for the rendered message, for any values (a property test checks
this). The saving depends on the values: short ASCII words and whole numbers go into finished bytes; other words go into
a finished text part; text that HTML escapes, and empty text, is read and laid out anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Final, NamedTuple

from engine.channels.mail.addresses import envelope_address
from engine.channels.mail.mime import (
    LONGEST_LINE,
    Sender,
    both,
    date_of,
    fingerprint,
    instant_of,
    mailbox,
    message_id,
    own_header,
    part,
    reply_to_line,
    shown_key,
    words,
)
from engine.channels.mail.plaintext import text_around, text_of
from engine.channels.mail.preheader import PREHEADER, with_preheader, without_preheader
from engine.channels.templates.links import marked, without_programs
from engine.channels.templates.slots import MARK, Slotted, cut
from engine.clock import Instant
from engine.domain.delivery import Envelope

_LONGEST_WORDS: Final = 100
"""Maximum characters of a value that goes into finished bytes: no line then exceeds the limit for unencoded lines."""
_WORD: Final = r"""[^\s&<>"'=\x00-\x1f\x7f-\x9f\ue000\ufdd0]+"""
_WORDS: Final = re.compile(f"{_WORD}(?: {_WORD})*")
"""Words that neither HTML nor a mail's encoding changes, with single spaces between them."""
_LARGEST: Final = 1 << 63
"""Whole numbers that go into finished bytes are below this limit: every MongoDB integer is."""
_PRINT: Final = b"%(print)b"
"""The place of the delivery's fingerprint."""


@dataclass(frozen=True, slots=True)
class Letter:
    """The templates of a message (`text` may be empty), its sender and its campaign.

    `html` says whether the body is HTML; `preheader` and the texts of `headers` are templates too. `snippets` and
    `text_snippets` are the snippets that templates may name, in HTML and in texts. `envelope_from` receives bounces.
    """

    sender: Sender
    campaign: str
    subject: str
    body: str
    text: str
    html: bool = True
    preheader: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    reply_to: Sender | None = None
    envelope_from: str = ""
    snippets: Mapping[str, str] = field(default_factory=dict)
    text_snippets: Mapping[str, str] = field(default_factory=dict)

    def parts(self) -> Iterator[tuple[str, str, bool]]:
        """Yield the templates: the name of each part as origins spell it, its text, and whether it is HTML."""
        yield "subject", self.subject, False
        yield "body", self.body, self.html
        for name, text in (("text", self.text), ("preheader", self.preheader)):
            if text and self.html:  # a plain body has room for neither
                yield name, text, False
        for name, text in self.headers:
            yield f"headers.{name}", text, False


class Written(NamedTuple):
    """The delivery key, envelope address, campaign time and system time of one mail."""

    key: str
    recipient: str
    as_of: Instant
    sent_at: Instant


class _Part:
    """One body part: its head and literals as bytes, if short ASCII words do not change its encoding."""

    def __init__(self, kind: str, literals: tuple[str, ...]) -> None:
        self._kind, self._literals = kind, literals
        joined = MARK.join(literals).replace("\0", "")
        self._bytes: list[bytes] = []
        lines = [len(line) + line.count(MARK) * _LONGEST_WORDS for line in joined.split("\n")]
        plain = joined.replace(MARK, "")
        if plain.isascii() and "=_" not in joined and "=" + MARK not in joined and max(lines) <= LONGEST_LINE:
            head = part(kind, "").removesuffix(b"\r\n")  # an empty part still ends its line
            ended = joined if joined.endswith("\n") else joined + "\n"
            self._bytes = [literal.encode() for literal in ended.replace("\n", "\r\n").split(MARK)]
            self._bytes[0] = head + self._bytes[0]

    @property
    def finished(self) -> list[bytes]:
        """The part as bytes, cut at its slots; empty if the values decide its encoding."""
        return self._bytes

    def made(self, texts: list[str], plain: list[bytes] | None) -> bytes:
        """Return the part with `texts` in its slots; `plain` holds them as bytes if they are short ASCII words."""
        if self._bytes and plain is not None:
            return _woven(self._bytes, plain)
        return part(self._kind, without_programs(_joined(self._literals, texts)))


class PrebuiltMail:
    """The skeleton of one letter. Use `skeleton_of`."""

    def __init__(self, letter: Letter, addresses: tuple[str, str], cuts: _Cuts) -> None:
        subject, body, text, preheader = cuts.subject, cuts.body, cuts.text, cuts.preheader
        sender, self._bounces = addresses
        self._html = letter.html
        self._subject, self._text = subject, text
        self._body = _without_mark(body) if self._html else body
        self._sender = sender
        self._from = mailbox(letter.sender.name, sender, "From")
        self._reply_to = b"".join(line + b"\r\n" for line in reply_to_line(letter.reply_to))
        self._headers = cuts.headers
        self._campaign = words(letter.campaign, "Tidegate-Campaign")
        self._fixed_subject = None if subject.slots else words(subject.literals[0], "Subject")
        self._preheader, self._split = preheader, 0
        shown = self._body
        if self._html and preheader is not None:
            shown, self._split = _with_preheader(body, preheader)
        self._shown = shown
        self._body_part = _Part("html" if self._html else "plain", shown.literals)
        self._text_part = None if text is None else _Part("plain", text.literals)
        around = text_around(self._body.marked, MARK) if self._html else None
        self._seen = [] if around is None else around[1]
        self._around = None if around is None else _Part("plain", tuple(around[0]))
        fields = {slot.field for template in (subject, shown, text) if template for slot in template.slots}
        self._places = {field: _place(field) for field in fields}
        self._whole = self._finished()

    @property
    def reads_ahead(self) -> bool:
        """Whether the text part was read from the HTML once, for all users whose values are plain words."""
        return self._around is not None

    @property
    def is_finished(self) -> bool:
        """Whether short ASCII words go into finished bytes of the whole mail."""
        return self._whole is not None

    def mail(self, user: Mapping[str, object], values: Mapping[str, object], written: Written) -> Envelope:
        """Return the envelope for one user; `values` is the full context of the templates. Raises `TemplateFailed`."""
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
        for place, name, template in self._headers:
            line = own_header(name, template.fill(_texts(template, user, values, html=False)))
            given[place] = line + b"\r\n" if line else b""
        if self._whole is not None and self._put_words(user, given):
            raw = self._whole % given
        else:
            raw = self._head() % given + self._content(given[b"print"], user, values)
        return Envelope(key, self._bounces, written.recipient, raw, clean=True)

    def _head(self) -> bytes:
        """Return all headers before the content's own, with a named place for each varying value."""
        return (
            b"From: %b\r\n%bTo: %%(to)b\r\nSubject: %%(subject)b\r\nDate: %%(date)b\r\nMessage-ID: %b\r\n"
            b"MIME-Version: 1.0\r\nTidegate-Delivery: %%(key)b\r\nTidegate-Campaign: %b\r\n"
            b"Tidegate-As-Of: %%(as_of)b\r\n%b"
        ) % (
            _literal(self._from),
            _literal(self._reply_to),
            message_id(_PRINT, self._sender),
            _literal(self._campaign),
            b"".join(b"%%(%b)b" % place for place, _, _ in self._headers),
        )

    def _finished(self) -> bytes | None:
        """Return the whole mail with a named place for each varying value, or None.

        None if a filter has to compute a text, or if a value decides the encoding of a part or whether it is empty.
        """
        if None in self._places:
            return None  # a filter has to compute the text
        main = _named(self._body_part, self._shown)
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
        """Add the user's values by field name; return False if one is neither short words nor a whole number."""
        for name, place in self._places.items():
            value = user.get(name) if name else None
            if type(value) is int and abs(value) < _LARGEST:
                given[place] = b"%d" % value
                continue
            if type(value) is not str or len(value) > _LONGEST_WORDS or not value.isascii():
                return False
            if not _WORDS.fullmatch(value) or (self._html and marked(value) != value):
                return False
            given[place] = value.encode()
        return True

    def _content(self, print_of_key: bytes, user: Mapping[str, object], values: Mapping[str, object]) -> bytes:
        texts = _texts(self._body, user, values, html=self._html)
        plain = _plain(texts)
        main = self._body_part.made(*self._with_preheader(texts, plain, user, values))
        if not self._html:
            return main
        if self._text is not None and self._text_part is not None:
            own = _texts(self._text, user, values, html=False)
            if any(own) or any(self._text.literals):
                return both(print_of_key, self._text_part.made(own, _plain(own)), main)
        return both(print_of_key, self._read(texts, plain), main)

    def _with_preheader(
        self, texts: list[str], plain: list[bytes] | None, user: Mapping[str, object], values: Mapping[str, object]
    ) -> tuple[list[str], list[bytes] | None]:
        """Return the texts for the slots of the body, with those of its preheader among them."""
        if self._preheader is None or not self._preheader.slots:
            return texts, plain
        own = [escape(text) for text in _texts(self._preheader, user, values, html=False)]
        shown = [*texts[: self._split], *own, *texts[self._split :]]
        return shown, _plain(shown)

    def _read(self, texts: list[str], plain: list[bytes] | None) -> bytes:
        """Return the text part that is read from the HTML."""
        if self._around is not None and (plain is not None or all(map(_WORDS.fullmatch, texts))):
            seen = [text for text, seen in zip(texts, self._seen, strict=True) if seen]
            return self._around.made(seen, None if plain is None else [text.encode() for text in seen])
        return part("plain", text_of(without_programs(self._body.fill(texts))))


class _Cuts(NamedTuple):
    """The templates of a letter, each cut at its outputs; a header has the name of its place and its own name."""

    subject: Slotted
    body: Slotted
    text: Slotted | None
    preheader: Slotted | None
    headers: list[tuple[bytes, str, Slotted]]


def skeleton_of(letter: Letter) -> PrebuiltMail | None:
    """Return the skeleton of a letter, or None if it must be rendered as a whole. Raises `TemplateFailed`.

    Returns None if a template has a tag, if the body or the preheader could come out empty, or if the sender, the
    bounce or the Reply-To address is invalid.
    """
    html, inside = letter.html, letter.text_snippets
    body = cut(letter.body, html=html, snippets=letter.snippets if html else inside)
    texts = {name: cut(text, html=False, snippets=inside) for name, text, _ in letter.parts() if name != "body"}
    sender = envelope_address(letter.sender.address)
    bounces = envelope_address(letter.envelope_from) if letter.envelope_from else sender
    preheader = texts.get("preheader")
    if body is None or None in texts.values() or sender is None or bounces is None or not any(body.literals):
        return None
    if letter.reply_to is not None and envelope_address(letter.reply_to.address) is None:
        return None
    if preheader is not None and not "".join(preheader.literals).strip():
        return None
    subject, text = texts["subject"], texts.get("text") if html else None
    assert subject is not None  # noqa: S101 - a letter has one
    headers = [
        (b"header.%d" % i, name, template)
        for i, (name, _) in enumerate(letter.headers)
        if (template := texts[f"headers.{name}"]) is not None
    ]
    return PrebuiltMail(letter, (sender, bounces), _Cuts(subject, body, text, preheader, headers))


def _without_mark(body: Slotted) -> Slotted:
    """Remove the preheader mark from a body."""
    return Slotted(tuple(without_preheader(text) for text in body.literals), body.slots)


def _with_preheader(body: Slotted, preheader: Slotted) -> tuple[Slotted, int]:
    """Put the preheader into its place in a body; also return how many of the body's slots come before it."""
    place = body.marked.find(PREHEADER)
    before = body.marked.count(MARK, 0, place) if place >= 0 else 0
    whole = with_preheader(body.marked, escape(preheader.marked))
    slots = (*body.slots[:before], *preheader.slots, *body.slots[before:])
    return Slotted(tuple(whole.split(MARK)), slots), before


def _texts(slotted: Slotted, user: Mapping[str, object], values: Mapping[str, object], *, html: bool) -> list[str]:
    return [slot.text(user, values, html=html) for slot in slotted.slots]


def _plain(texts: list[str]) -> list[bytes] | None:
    """Return `texts` as bytes if they are short ASCII words, else None."""
    for text in texts:
        if len(text) > _LONGEST_WORDS or not text.isascii() or not _WORDS.fullmatch(text):
            return None
    return [text.encode() for text in texts]


def _place(field: str | None) -> bytes:
    """Return the name of a field's place, in hex: no two names collide and no name breaks the format."""
    return b"user." + (field or "").encode().hex().encode()


def _literal(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")


def _named(template: _Part, slotted: Slotted) -> bytes | None:
    """Return a finished part with a named place for each slot."""
    if not template.finished:
        return None
    return _woven(
        [_literal(text) for text in template.finished], [b"%%(%b)b" % _place(slot.field) for slot in slotted.slots]
    )


def _joined(literals: tuple[str, ...], texts: list[str]) -> str:
    return "".join(text for pair in zip(literals, [*texts, ""], strict=True) for text in pair)


def _woven(literals: list[bytes], texts: list[bytes]) -> bytes:
    if not texts:
        return literals[0]
    return b"".join(text for pair in zip(literals, [*texts, b""], strict=True) for text in pair)
