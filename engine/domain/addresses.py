"""E-mail addresses and domains: what is one, and how it travels in an envelope.

Domains follow IDNA 2008 with the mapping of UTS 46, non-transitional, as browsers and mail servers do: `faß.de` is
`xn--fa-hia.de`, another domain than `fass.de`. Everything that takes an address or a host name from outside goes
through here (sending, import, workspace files, settings), so that all agree.
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
"""What nearly every address is: it is taken as it stands."""
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_LONGEST: Final = 254
"""Bytes of an address in an envelope: RFC 5321 allows a path of 256 with its angle brackets."""
_LONGEST_DOMAIN: Final = 253
"""Bytes of a domain name (RFC 1035), and characters of one in another script: none of them becomes shorter."""


def envelope_address(text: str) -> str | None:
    """`text` as a bare envelope address with an ASCII domain, or None where it is no address.

    A dot-atom local part of at most 64 bytes (other scripts allowed: such an address needs SMTPUTF8) and a domain of at
    least two labels (other scripts become their ASCII form, see `ascii_domain`) or `localhost`. Quoted local parts,
    comments, display names and address literals are refused: nobody collects them, and each is a way to smuggle a
    header.
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
    except UnicodeError:  # a lone surrogate: no server can be told it
        return None
    return f"{local}@{domain}" if local_bytes <= 64 and local_bytes + 1 + len(domain) <= _LONGEST else None


@lru_cache(4_096)
def ascii_domain(text: str) -> str | None:
    """A domain or host name in the ASCII form that DNS and SMTP use, or None where it is none.

    An ASCII name stands as it is, its case too. In another name each label is mapped and checked by IDNA 2008 with
    UTS 46, non-transitional: full-width dots and letters, capitals and compatibility forms are mapped, emoji and what
    else IDNA 2008 disallows make it no domain.
    """
    domain = text
    if not text.isascii():
        # the tables take some milliseconds to load, and few processes meet such a domain
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
    """Whether the address can only travel over a server that offers SMTPUTF8."""
    return not address.isascii()


def domain_of(address: str) -> str:
    """The part after the last `@`."""
    return address.rpartition("@")[2]
