"""Make a link harmless if a user's value would turn it into a program; change only that link.

The template marks a printed value that may begin such a link. Once the whole HTML is there, a mark inside the value of
a link's attribute, or of a link that CSS or a refresh names, becomes `unsafe:` if the link runs a program
(`javascript:`, `vbscript:`, `data:` of anything but a picture); every other mark is removed. This sees the link as the
mail program sees it, even across a snippet, a layout, a condition, or two outputs that form one address. The text of
the template's author stays unchanged.
"""

from __future__ import annotations

import re
from html import unescape
from typing import Final

LINK_MARK: Final = "\ufdd0"
"""Precedes a value that may begin a link; a Unicode noncharacter, so no text contains it."""

_SCHEMES: Final = ("javascript", "vbscript", "data")
_BLANK: Final = re.compile(r"[\x00-\x20\x7f-\xa0]")
"""Characters that browsers remove from an address, or may remove."""
_DANGEROUS: Final = re.compile(r"(?:java|vb)script:|data:(?!image/(?:png|gif|jpe?g|webp|avif|bmp)\b)")
_IN_LINK: Final = re.compile(
    r"""(?:[\s"'/](?:xlink:href|href|src|action|formaction|background|poster|cite|data|longdesc|dynsrc|lowsrc|ping"""
    r"""|(?P<several>srcset|imagesrcset))\s*=\s*(?:"(?P<double>[^"]*)|'(?P<single>[^']*)|(?P<bare>[^\s"'<>`]*))"""
    r"""|\burl\s*[(=]\s*(?:"|'|&quot;|&\#39;)?(?P<named>[^"'()\s<>&]*))\Z""",
    re.IGNORECASE,
)
"""An unfinished link: in an attribute, or named as in CSS and in `<meta http-equiv="refresh">`."""
_LONGEST: Final = 4_000
"""Maximum characters from the start of an attribute to a mark, and from a mark to the end of a scheme."""


def marked(text: str) -> str:
    """Mark `text`, already escaped, if it may begin or continue a link that runs a program."""
    head, colon, _ = text.partition(":")
    if not colon or len(head) > _LONGEST:
        return text
    bare = _BLANK.sub("", unescape(head)).lower()
    return LINK_MARK + text if any(scheme.endswith(bare) for scheme in _SCHEMES) else text


def without_programs(html: str) -> str:
    """Remove the marks from the HTML and make its marked links harmless."""
    if LINK_MARK not in html:
        return html
    done, *rest = html.split(LINK_MARK)
    for part in rest:
        done += f"unsafe:{part}" if _runs(done, part) else part
    return done


def _runs(before: str, text: str) -> bool:
    """Whether `text` continues the value of a link's attribute, and the link runs a program."""
    match = _IN_LINK.search(before[-_LONGEST:])
    if match is None:
        return False
    begun = match["double"] or match["single"] or match["bare"] or match["named"] or ""
    if match["several"]:
        begun = begun.rpartition(",")[2]
    address = _BLANK.sub("", unescape(begun + text[:_LONGEST])).lower()
    return _DANGEROUS.match(address) is not None
