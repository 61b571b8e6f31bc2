"""The preheader: a line that mail programs show after the subject, hidden at the beginning of an HTML body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from secrets import token_hex
from typing import Final

PREHEADER: Final = f"\ue001{token_hex(8)}\ue001"
"""Placeholder for the preheader in a body's text, within this process only: no user field can contain it."""

_BODY: Final = re.compile(r"<body\b(?:[^<>{}]|\{\{.*?\}\}|\{%.*?%\})*>", re.IGNORECASE | re.DOTALL)
_BEFORE: Final = (
    '<div style="display:none;font-size:1px;line-height:1px;max-height:0;max-width:0;opacity:0;overflow:hidden">\n'
)
_FILLING: Final = "\n".join(["&#847;&zwnj;&nbsp;" * 8] * 10)
"""Blanks after the preheader, so that no mail program continues with the first words of the body."""


def mark_preheader(body: str, snippets: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Put `PREHEADER` after the first `<body>` tag of the body or its layouts; without one, add no mark.

    Without a mark, `with_preheader` puts the preheader first.
    """
    if _BODY.search(body):
        return _marked(body), dict(snippets)
    for name in sorted(snippets):
        if _BODY.search(snippets[name]):
            return body, {**snippets, name: _marked(snippets[name])}
    return body, dict(snippets)


def _marked(text: str) -> str:
    return _BODY.sub(lambda match: match[0] + PREHEADER, text, count=1)


def with_preheader(html: str, escaped: str) -> str:
    """Put the preheader, which is already escaped, into its place in the body."""
    if not escaped:
        return html.replace(PREHEADER, "")
    hidden = f"{_BEFORE}{escaped}{_FILLING}</div>\n"
    if PREHEADER not in html:
        return hidden + html
    before, _, after = html.partition(PREHEADER)
    return before + hidden + without_preheader(after)


def without_preheader(html: str) -> str:
    """Return the body without the preheader mark, for its text part: the hidden preheader is not part of the text."""
    return html.replace(PREHEADER, "")
