"""Parse e-mail addresses and domain names, and convert them to the form that an SMTP envelope needs.

Domains follow IDNA 2008 with the mapping of UTS 46, non-transitional, as browsers and mail servers do: `faß.de` becomes
`xn--fa-hia.de`, a different domain from `fass.de`. All code that accepts an address or a host name from outside calls
this module (sending, import, workspace files, settings), so every part of the engine agrees.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_LOCAL: Final = re.compile(r"[^\s\x00-\x20\x7f-\xa0()<>\[\]:;@\\,.\"]+(\.[^\s\x00-\x20\x7f-\xa0()<>\[\]:;@\\,.\"]+)*")
_PLAIN: Final = re.compile(
    r"(?=.{3,254}\Z)[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64})*"
    r"@(?:(?!-)[A-Za-z0-9-]{1,63}(?<!-)\.)+(?!-)(?![0-9]+\Z)[A-Za-z0-9-]{1,63}(?<!-)"
)
"""Matches nearly every address; a match is used unchanged."""
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_LONGEST: Final = 254
"""Bytes of an address in an envelope: RFC 5321 allows a path of 256 bytes, which includes the angle brackets."""
_LONGEST_DOMAIN: Final = 253
"""Bytes of a domain name (RFC 1035). Also the character limit for a name in another script, because its ASCII form is
never shorter."""


def envelope_address(text: str) -> str | None:
    """Return `text` as a bare envelope address with an ASCII domain, or None if it is not an address.

    The local part is a dot-atom of at most 64 bytes. It may contain other scripts; such an address needs SMTPUTF8. The
    domain is `localhost` or has at least two labels; other scripts become their ASCII form, see `ascii_domain`. Quoted
    local parts, comments, display names and address literals are refused: nobody collects them, and each of them can be
    used to smuggle a header.
    """
    if _PLAIN.fullmatch(text) and text.find("@") <= 64:
        return text
    local, at, given = text.strip().rpartition("@")
    if not at or not _LOCAL.fullmatch(local):
        return None
    domain = ascii_domain(given)
    if domain is None or (domain != "localhost" and "." not in domain) or domain.rpartition(".")[2].isdigit():
        return None
    try:
        local_bytes = len(local.encode())
    except UnicodeError:  # a lone surrogate: it cannot be encoded
        return None
    return f"{local}@{domain}" if local_bytes <= 64 and local_bytes + 1 + len(domain) <= _LONGEST else None


@lru_cache(4_096)
def ascii_domain(text: str) -> str | None:
    """Return a domain or host name in the ASCII form that DNS and SMTP use, or None if it is not valid.

    An ASCII name is returned unchanged, including its case. In any other name each label is mapped and checked by IDNA
    2008 with UTS 46, non-transitional. The mapping converts full-width dots and letters, capitals and compatibility
    forms. A name with emoji or other characters that IDNA 2008 disallows is not a domain.
    """
    domain = text
    if not text.isascii():
        # loading the tables takes some milliseconds, and few processes meet such a domain
        import idna

        if len(text) > _LONGEST_DOMAIN:
            return None
        try:
            domain = idna.encode(text, uts46=True, std3_rules=True).decode("ascii")
        except UnicodeError:  # idna.IDNAError is one
            return None
    fits = len(domain) <= _LONGEST_DOMAIN and all(_LABEL.fullmatch(label) for label in domain.split("."))
    return domain if fits else None


def needs_smtputf8(address: str) -> bool:
    """Whether only a server that offers SMTPUTF8 can carry the address."""
    return not address.isascii()


def domain_of(address: str) -> str:
    """Return the part after the last `@`."""
    return address.rpartition("@")[2]
