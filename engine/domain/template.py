"""The texts of a campaign's mails as they are kept with it, and the places where their author has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MARKUP: Final = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
"""One output or tag of Liquid."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a text comes from: the file as errors name it, and the line there of each of its Liquid pieces.

    `lines` is empty where the text is kept as it was written; Markdown and MJML become HTML, and their lines move.
    """

    file: str
    lines: tuple[int, ...] = ()

    def line(self, text: str, index: int) -> int:
        """The line, from 1, in which the author wrote what stands at `index` of the kept `text`."""
        if not self.lines:
            return text.count("\n", 0, index) + 1
        before = sum(found.start() <= index for found in MARKUP.finditer(text))
        return self.lines[min(max(before, 1), len(self.lines)) - 1]


@dataclass(frozen=True, slots=True)
class Snippet:
    """A layout or snippet: the name by which texts of a format (`html` or `text`) name it, and its text."""

    name: str
    form: str
    text: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class KeptTexts:
    """What is kept with a campaign beside its file: snippets, and the origins of texts by message and part."""

    snippets: tuple[Snippet, ...] = ()
    origins: Mapping[tuple[str, str], Origin] = field(default_factory=dict)

    def named(self, form: str) -> dict[str, str]:
        """The texts of the snippets of a format by name."""
        return {snippet.name: snippet.text for snippet in self.snippets if snippet.form == form}

    def plain(self) -> dict[str, object]:
        """As plain values, to be stored; `kept_texts` reads them back."""
        return {
            "snippets": [
                {"name": one.name, "format": one.form, "text": one.text, **_origin(one.origin)} for one in self.snippets
            ],
            "origins": [
                {"message": message, "part": part, **_origin(origin)}
                for (message, part), origin in sorted(self.origins.items())
            ],
        }


def _origin(origin: Origin) -> dict[str, object]:
    return {"file": origin.file, **({"lines": list(origin.lines)} if origin.lines else {})}


def kept_texts(plain: object) -> KeptTexts:
    """What `KeptTexts.plain` told of; nothing is kept where a campaign was stored by an older version."""
    if not isinstance(plain, Mapping):
        return KeptTexts()
    snippets = tuple(
        Snippet(str(one["name"]), str(one["format"]), str(one["text"]), _origin_of(one)) for one in plain["snippets"]
    )
    origins = {(str(one["message"]), str(one["part"])): _origin_of(one) for one in plain["origins"]}
    return KeptTexts(snippets, origins)


def _origin_of(plain: Mapping[str, object]) -> Origin:
    lines = plain.get("lines")
    return Origin(str(plain["file"]), tuple(int(line) for line in lines) if isinstance(lines, list) else ())
