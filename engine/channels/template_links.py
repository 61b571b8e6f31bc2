"""Links that a user's value would turn into a program: they are made harmless where they stand, and only there.

A value that may begin such a link is marked when it is printed. Once the whole HTML is there, a mark inside the value
of a link's attribute, or of a link that CSS or a refresh names, becomes `unsafe:` where the link runs a program
(`javascript:`, `vbscript:`, `data:` of anything but a picture); every other mark goes. So whatever stands between, a
snippet, a layout, a condition, two outputs that make one address, is seen as the mail program sees it; and what the
template's author wrote stays.
"""

from __future__ import annotations

import re
from html import unescape
from typing import Final

LINK_MARK: Final = "\ufdd0"
"""Stands before a value that may begin a link; no character of Unicode's, so in no text."""

_SCHEMES: Final = ("javascript", "vbscript", "data")
_BLANK: Final = re.compile(r"[\x00-\x20\x7f-\xa0]")
"""What browsers leave out of an address, or may."""
_DANGEROUS: Final = re.compile(r"(?:java|vb)script:|data:(?!image/(?:png|gif|jpe?g|webp|avif|bmp)\b)")
_IN_LINK: Final = re.compile(
    r"""(?:[\s"'/](?:xlink:href|href|src|action|formaction|background|poster|cite|data|longdesc|dynsrc|lowsrc|ping"""
    r"""|(?P<several>srcset|imagesrcset))\s*=\s*(?:"(?P<double>[^"]*)|'(?P<single>[^']*)|(?P<bare>[^\s"'<>`]*))"""
    r"""|\burl\s*[(=]\s*(?:"|'|&quot;|&\#39;)?(?P<named>[^"'()\s<>&]*))\Z""",
    re.IGNORECASE,
)
"""A link that has begun: in an attribute, or named as CSS and `<meta http-equiv="refresh">` name one."""
_LONGEST: Final = 4_000
"""Characters before a mark in which its attribute begins, and after it in which a scheme ends."""


def marked(text: str) -> str:
    """`text`, already escaped, with a mark where it may begin a link that runs a program, or go on with one."""
    head, colon, _ = text.partition(":")
    if not colon or len(head) > _LONGEST:
        return text
    bare = _BLANK.sub("", unescape(head)).lower()
    return LINK_MARK + text if any(scheme.endswith(bare) for scheme in _SCHEMES) else text


def without_programs(html: str) -> str:
    """The HTML without marks, its marked links made harmless."""
    if LINK_MARK not in html:
        return html
    done, *rest = html.split(LINK_MARK)
    for piece in rest:
        done += f"unsafe:{piece}" if _runs(done, piece) else piece
    return done


def _runs(before: str, piece: str) -> bool:
    """Whether `piece` goes on with the value of a link's attribute that runs a program."""
    found = _IN_LINK.search(before[-_LONGEST:])
    if found is None:
        return False
    begun = found["double"] or found["single"] or found["bare"] or found["named"] or ""
    if found["several"]:
        begun = begun.rpartition(",")[2]
    address = _BLANK.sub("", unescape(begun + piece[:_LONGEST])).lower()
    return _DANGEROUS.match(address) is not None
