"""A message as it is written to one user after another: its templates read once, its mail's skeleton made once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from engine.channels.message import Mail, build
from engine.channels.skeleton import Letter, Written, is_html, skeleton_of
from engine.channels.template_values import UserValues, surroundings
from engine.channels.templates import TemplateFailed, render, user_fields
from engine.domain.delivery import Envelope
from engine.predicate.fields import Catalogue

ALWAYS: Final = ("email", "unsubscribed", "deleted")
"""What is read of every user before a mail is sent."""


class Mailing:
    """Writes the mails of one message of one campaign."""

    def __init__(self, letter: Letter, message: str, catalogue: Catalogue) -> None:
        """A template that cannot be read fails when a mail is written, not here."""
        self._letter = letter
        self._html = is_html(letter.body)
        # The zone of `date` is the user's own, whatever a template names.
        named = _named((letter.subject, letter.body, letter.text))
        self.catalogue = catalogue
        self._values = UserValues(catalogue, None if named is None else {*named, "timezone"})
        self._surroundings = lru_cache(64)(lambda as_of: surroundings(catalogue, letter.campaign, message, as_of))
        try:
            self._skeleton = skeleton_of(letter)
        except TemplateFailed:
            self._skeleton = None

    @property
    def paths(self) -> list[str]:
        """What its mails need of a user document besides `ALWAYS`."""
        return self._values.paths

    def write(self, document: Mapping[str, object], written: Written) -> Envelope:
        """The mail for the user of `document`. Raises `TemplateFailed`, or `BadMessage` where it would be empty."""
        user = self._values.of(document)
        values = {**self._surroundings(written.as_of), "user": user}
        if self._skeleton is None:
            return self.write_whole(values, written)
        return self._skeleton.mail(user, values, written)

    def write_whole(self, values: Mapping[str, object], written: Written) -> Envelope:
        """The same without the skeleton: rendered as a whole, then built. Raises as `write`."""
        letter, html = self._letter, self._html
        body = render(letter.body, values, html=html)
        text = render(letter.text, values) if letter.text else ""
        return build(
            Mail(
                key=written.key,
                campaign=letter.campaign,
                as_of=written.as_of,
                sent_at=written.sent_at,
                sender=letter.sender,
                recipient=written.recipient,
                subject=render(letter.subject, values),
                html=body if html else "",
                text=text if html else body,
            )
        )


def _named(templates: tuple[str, ...]) -> set[str] | None:
    """The user's fields that templates name; None where one names them all, or cannot be read."""
    named: set[str] = set()
    for template in templates:
        try:
            fields = user_fields(template)
        except TemplateFailed:
            return None
        if fields is None:
            return None
        named |= fields
    return named
