"""The preheader: a line that mail programs show behind the subject, hidden at the beginning of an HTML body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from secrets import token_hex
from typing import Final

PREHEADER: Final = f"\ue001{token_hex(8)}\ue001"
"""Stands in a body's text where its preheader goes, within this process only: no user's field can hold it."""

_BODY: Final = re.compile(r"<body\b(?:[^<>{}]|\{\{.*?\}\}|\{%.*?%\})*>", re.IGNORECASE | re.DOTALL)
_BEFORE: Final = (
    '<div style="display:none;font-size:1px;line-height:1px;max-height:0;max-width:0;opacity:0;overflow:hidden">\n'
)
_FILLING: Final = "\n".join(["&#847;&zwnj;&nbsp;" * 8] * 10)
"""Blanks behind it, so that no mail program goes on with the body's own first words."""


def mark_preheader(body: str, snippets: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """A body and its layouts with `PREHEADER` behind the first `<body>` tag; where there is none it goes before all."""
    if _BODY.search(body):
        return _marked(body), dict(snippets)
    for name in sorted(snippets):
        if _BODY.search(snippets[name]):
            return body, {**snippets, name: _marked(snippets[name])}
    return body, dict(snippets)


def _marked(text: str) -> str:
    return _BODY.sub(lambda found: found[0] + PREHEADER, text, count=1)


def with_preheader(html: str, escaped: str) -> str:
    """A body with its preheader, which is escaped already, in its place."""
    if not escaped:
        return html.replace(PREHEADER, "")
    hidden = f"{_BEFORE}{escaped}{_FILLING}</div>\n"
    if PREHEADER not in html:
        return hidden + html
    before, _, after = html.partition(PREHEADER)
    return before + hidden + without_preheader(after)


def without_preheader(html: str) -> str:
    """A body as it is read for its text part: what is hidden is no part of it."""
    return html.replace(PREHEADER, "")
