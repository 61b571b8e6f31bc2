"""Check the e-mail addresses of imported users without DNS, and write them in one form.

The local part stays as it is (NFC); the domain becomes lower case, in its own script. So `Ann@SHOP.example` and
`Ann@shop.example` are one address, as are `faß.de` and `xn--fa-hia.de`. An accepted address is one that the sending
side can put into an envelope (`engine.domain.addresses`).
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
"""Matches nearly every address: one that already has the stored form.

Encoded labels of other scripts contain two hyphens in a row and do not match; the full check reads them.
"""

_SPECIAL: Final = frozenset({"invalid", "local", "localhost", "onion", "arpa"})
"""Top-level domains that mail cannot reach; `test` and `example` are accepted, for trials."""
_LONGEST_LABEL: Final = 63


class BadAddressError(RowFaultError):
    """The row's e-mail address is invalid."""


def plain_address(raw: object) -> bool:
    """Return whether `raw` is an address that already has the stored form."""
    if type(raw) is not str or _PLAIN.fullmatch(raw) is None:
        return False
    domain = raw[raw.index("@") + 1 :]
    return len(domain) <= _LONGEST_LABEL and domain[domain.rindex(".") + 1 :] not in _SPECIAL


def read_address(raw: str) -> str:
    """Return the address in its stored form. Raises `BadAddressError` with the reason if it is invalid."""
    local, at, domain = raw.rpartition("@")
    lowered = f"{local}{at}{domain.lower()}" if raw.isascii() else raw
    if plain_address(lowered):
        return lowered
    if raw != raw.strip():
        raise BadAddressError("email: begins or ends with a space (remove it)")
    validate, error_kind = _library()
    try:
        address: str = validate(raw, check_deliverability=False, test_environment=True).normalized
    except error_kind as error:
        raise BadAddressError(f"email: {raw[:80]!r} is not an address: {error}") from error
    if envelope_address(address) is None:
        why = "at most 64 bytes before the @ and 254 in all can be sent to"
        raise BadAddressError(f"email: {raw[:80]!r} is not an address: {why}")
    return address


@cache
def _library() -> tuple[Any, type[Exception]]:  # Any: the library's function with its many options
    # Imported here, because that takes longer than an import of a few rows, and most files do not need it.
    from email_validator import EmailNotValidError, validate_email

    return validate_email, EmailNotValidError
