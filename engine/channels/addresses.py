"""E-mail addresses: what is one, and how it travels in an envelope."""

from __future__ import annotations

import re
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


def envelope_address(text: str) -> str | None:
    """`text` as a bare envelope address with an ASCII domain, or None where it is no address.

    A dot-atom local part of at most 64 bytes (other scripts allowed: such an address needs SMTPUTF8) and a domain of at
    least two labels (other scripts become their ASCII form) or `localhost`. Quoted local parts, comments, display names
    and address literals are refused: nobody collects them, and each is a way to smuggle a header.
    """
    if _PLAIN.fullmatch(text) and text.find("@") <= 64:
        return text
    local, at, domain = text.strip().rpartition("@")
    if not at or not _LOCAL.fullmatch(local):
        return None
    try:
        # UnicodeError is what the codec raises for an empty or overlong label
        ascii_domain = domain.encode("idna").decode("ascii")
        local_bytes = len(local.encode())
    except UnicodeError:
        return None
    labels = ascii_domain.split(".")
    if ascii_domain != "localhost" and len(labels) < 2:
        return None
    if not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        return None
    address = f"{local}@{ascii_domain}"
    return address if local_bytes <= 64 and len(address.encode()) <= _LONGEST else None


def needs_smtputf8(address: str) -> bool:
    """Whether the address can only travel over a server that offers SMTPUTF8."""
    return not address.isascii()


def domain_of(address: str) -> str:
    """The part after the last `@`."""
    return address.rpartition("@")[2]
