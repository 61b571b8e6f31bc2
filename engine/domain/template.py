"""The template texts stored with a campaign, and their positions in the author's files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MARKUP: Final = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
"""Matches one output or tag of Liquid."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a text: the file as errors name it, and the line in it of each Liquid piece.

    `lines` is empty if the text is stored as it was written. Markdown and MJML are converted to HTML, which moves
    lines.
    """

    file: str
    lines: tuple[int, ...] = ()

    def line(self, text: str, index: int) -> int:
        """Return the line, from 1, in which the author wrote the text at `index` of the stored `text`."""
        if not self.lines:
            return text.count("\n", 0, index) + 1
        before = sum(match.start() <= index for match in MARKUP.finditer(text))
        return self.lines[min(max(before, 1), len(self.lines)) - 1]


@dataclass(frozen=True, slots=True)
class Snippet:
    """A layout or snippet: the name by which texts of a format (`html` or `text`) refer to it, and its text."""

    name: str
    form: str
    text: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class KeptTexts:
    """Texts stored with a campaign beside its file: snippets, and the origins of texts by message and part."""

    snippets: tuple[Snippet, ...] = ()
    origins: Mapping[tuple[str, str], Origin] = field(default_factory=dict)

    def named(self, form: str) -> dict[str, str]:
        """Return the snippet texts of a format by name."""
        return {snippet.name: snippet.text for snippet in self.snippets if snippet.form == form}

    def plain(self) -> dict[str, object]:
        """Return plain values to store; `kept_texts` reads them back."""
        return {
            "snippets": [
                {"name": snippet.name, "format": snippet.form, "text": snippet.text, **_origin(snippet.origin)}
                for snippet in self.snippets
            ],
            "origins": [
                {"message": message, "part": part, **_origin(origin)}
                for (message, part), origin in sorted(self.origins.items())
            ],
        }


def _origin(origin: Origin) -> dict[str, object]:
    return {"file": origin.file, **({"lines": list(origin.lines)} if origin.lines else {})}


def kept_texts(plain: object) -> KeptTexts:
    """Read the result of `KeptTexts.plain`; empty for a campaign that an older version stored without texts."""
    if not isinstance(plain, Mapping):
        return KeptTexts()
    snippets = tuple(
        Snippet(str(snippet["name"]), str(snippet["format"]), str(snippet["text"]), _origin_of(snippet))
        for snippet in plain["snippets"]
    )
    origins = {(str(origin["message"]), str(origin["part"])): _origin_of(origin) for origin in plain["origins"]}
    return KeptTexts(snippets, origins)


def _origin_of(plain: Mapping[str, object]) -> Origin:
    lines = plain.get("lines")
    return Origin(str(plain["file"]), tuple(int(line) for line in lines) if isinstance(lines, list) else ())
