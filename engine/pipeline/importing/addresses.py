"""E-mail addresses of imported users: checked without DNS, and written in one way.

The local part stands as it is (NFC), the domain in lower case and in its own script, so `Ann@SHOP.example` and
`Ann@shop.example` are one address, as are `faß.de` and `xn--fa-hia.de`. What is taken is what the sending side can
put into an envelope (`engine.domain.addresses`).
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

from engine.domain.addresses import envelope_address
from engine.pipeline.importing.columns import RowFaultError

_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_PLAIN: Final = re.compile(
    rf"(?=.{{3,254}}\Z)(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?:[a-z0-9](?:-?[a-z0-9])*\.)+[a-z]{{2,63}}"
)
"""What nearly every address is: in one way already. Labels of other scripts have two hyphens and go the long way."""

_SPECIAL: Final = frozenset({"invalid", "local", "localhost", "onion", "arpa"})
"""Top-level domains that no mail reaches; `test` and `example` are taken, for trying things out."""
_LONGEST_LABEL: Final = 63


class BadAddressError(RowFaultError):
    """The address of a row is none."""


def plain_address(raw: object) -> bool:
    """Whether `raw` is an address as it is written."""
    if type(raw) is not str or _PLAIN.fullmatch(raw) is None:
        return False
    domain = raw[raw.index("@") + 1 :]
    return len(domain) <= _LONGEST_LABEL and domain[domain.rindex(".") + 1 :] not in _SPECIAL


def read_address(raw: str) -> str:
    """The address as it is stored. Raises `BadAddressError` with what is wrong with it."""
    local, at, domain = raw.rpartition("@")
    lowered = f"{local}{at}{domain.lower()}" if raw.isascii() else raw
    if plain_address(lowered):
        return lowered
    if raw != raw.strip():
        raise BadAddressError("email: begins or ends with a space (remove it)")
    validate, error_kind = _library()
    try:
        told: str = validate(raw, check_deliverability=False, test_environment=True).normalized
    except error_kind as error:
        raise BadAddressError(f"email: {raw[:80]!r} is no address: {error}") from error
    if envelope_address(told) is None:
        why = "at most 64 bytes before the @ and 254 in all can be sent to"
        raise BadAddressError(f"email: {raw[:80]!r} is no address: {why}")
    return told


@cache
def _library() -> tuple[Any, type[Exception]]:  # Any: the library's function with its many options
    # Here, because it takes longer to import than an import of a few rows, and most files need none of it.
    from email_validator import EmailNotValidError, validate_email

    return validate_email, EmailNotValidError
