"""Write one message to many users: read its templates once and build the skeleton of its mail once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Final

from liquid import BoundTemplate

from engine.catalogue.catalogue import Catalogue
from engine.channels.mail.mime import Mail, build
from engine.channels.mail.prebuilt import Letter, Written, skeleton_of
from engine.channels.mail.preheader import mark_preheader
from engine.channels.templates.context import UserValues, surroundings
from engine.channels.templates.errors import TemplateFailed
from engine.channels.templates.links import without_programs
from engine.channels.templates.liquid import rendered, user_fields, with_snippets
from engine.domain.delivery import Envelope

ALWAYS: Final = ("email", "unsubscribed", "deleted")
"""Fields read for every user before a mail is sent."""


class MailRenderer:
    """Writes the mails of one message of one campaign."""

    def __init__(self, letter: Letter, message: str, catalogue: Catalogue) -> None:
        """Prepare the templates; an invalid template raises when a mail is written, not here."""
        if letter.preheader and letter.html:
            body, snippets = mark_preheader(letter.body, letter.snippets)
            letter = replace(letter, body=body, snippets=snippets)
        self.catalogue = catalogue
        self._letter = letter
        # Filters use the user's own time zone and locale, even if the templates do not name these fields.
        named = _named(letter)
        self._values = UserValues(catalogue, None if named is None else {*named, "timezone", "locale"})
        self._surroundings = lru_cache(64)(lambda as_of: surroundings(catalogue, letter.campaign, message, as_of))
        self._bound: dict[str, BoundTemplate] = {}
        try:
            self._skeleton = skeleton_of(letter)
        except TemplateFailed:
            self._skeleton = None

    @property
    def paths(self) -> list[str]:
        """The fields that the mails need from a user document besides `ALWAYS`."""
        return self._values.paths

    def write(self, document: Mapping[str, object], written: Written) -> Envelope:
        """Return the mail for the user of `document`. Raises `TemplateFailed`, or `BadMessage` for an empty mail."""
        user = self._values.of(document)
        values = {**self._surroundings(written.as_of), "user": user}
        if self._skeleton is None:
            return self.write_whole(values, written)
        return self._skeleton.mail(user, values, written)

    def write_whole(self, values: Mapping[str, object], written: Written) -> Envelope:
        """Write the mail without the skeleton: render all parts, then build it. Raises as `write`."""
        letter = self._letter
        texts = {name: self._rendered(name, text, html, values) for name, text, html in letter.parts()}
        body = texts["body"]
        return build(
            Mail(
                key=written.key,
                campaign=letter.campaign,
                as_of=written.as_of,
                sent_at=written.sent_at,
                sender=letter.sender,
                recipient=written.recipient,
                subject=texts["subject"],
                html=body if letter.html else "",
                text=texts.get("text", "") if letter.html else body,
                reply_to=letter.reply_to,
                envelope_from=letter.envelope_from,
                headers=tuple((name, texts[f"headers.{name}"]) for name, _ in letter.headers),
                preheader=texts.get("preheader", ""),
            )
        )

    def part(self, name: str, values: Mapping[str, object]) -> str:
        """Render one part, by its name in `Letter.parts`. Raises `TemplateFailed`."""
        return next(self._rendered(*part, values) for part in self._letter.parts() if part[0] == name)

    def part_of(self, failure: TemplateFailed) -> str:
        """Return the part whose own text failed; empty if a snippet or layout failed."""
        return next((name for name, text, _ in self._letter.parts() if text == failure.source), "")

    def snippet_of(self, failure: TemplateFailed) -> tuple[str, str]:
        """Return the format and name of the snippet whose text failed; empty if no snippet failed."""
        for form, texts in (("html", self._letter.snippets), ("text", self._letter.text_snippets)):
            for name, text in texts.items():
                if text == failure.source:
                    return form, name
        return "", ""

    def _rendered(self, name: str, text: str, html: bool, values: Mapping[str, object]) -> str:
        template = self._bound.get(name)
        if template is None:
            template = with_snippets(text, html, self._letter.snippets if html else self._letter.text_snippets)
            self._bound[name] = template
        made = rendered(template, values, text)
        return without_programs(made) if html else made


def _named(letter: Letter) -> set[str] | None:
    """Return the user fields that the templates name; None if a template names all fields or cannot be read."""
    named: set[str] = set()
    for _, text, html in letter.parts():
        try:
            fields = user_fields(text, letter.snippets if html else letter.text_snippets)
        except TemplateFailed:
            return None
        if fields is None:
            return None
        named |= fields
    return named
