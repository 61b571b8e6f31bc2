"""What really came out: the mails of a Maildir, read from their headers, counted by nobody else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from email.parser import BytesHeaderParser
from email.policy import default
from pathlib import Path
from typing import Final

from examples.grocer.oracle import Mail

_ADDRESS: Final = re.compile(r"hh-([0-9]+)@example\.org")
_HEADERS: Final = ("Tidegate-Delivery", "Tidegate-Campaign", "Tidegate-As-Of", "To")
_PARSER: Final = BytesHeaderParser(policy=default)


class StrangeMail(ValueError):
    """A file in the Maildir is none of the replay's mails; the text names the file and the header."""


def read_maildir(folder: Path) -> list[Mail]:
    """Every mail in `new/` and `cur/`, one entry per file, so that two of the same are two.

    What lies in `tmp/` was never delivered. Raises `StrangeMail` for a file whose headers do not say who got which
    message of which campaign on which day.
    """
    return [read_mail(path) for path in files(folder)]


def files(folder: Path) -> Iterator[Path]:
    """The delivered mails of a Maildir; none where it does not exist."""
    for part in ("new", "cur"):
        if (folder / part).is_dir():
            yield from sorted((folder / part).iterdir())


def read_mail(path: Path) -> Mail:
    """Who (`To`), which campaign (`Tidegate-Campaign`), which message (the end of the delivery key), which day."""
    with path.open("rb") as file:
        headers = _PARSER.parse(file)
    delivery, campaign, as_of, to = (str(headers.get(name, "")).strip() for name in _HEADERS)
    address = _ADDRESS.fullmatch(to)
    if address is None:
        raise StrangeMail(f"{path.name}: To: {to!r} is no household's address")
    if not campaign:
        raise StrangeMail(f"{path.name}: Tidegate-Campaign is missing")
    if delivery.count("/") != 5:  # workspace, campaign, hash, user, entry, message
        raise StrangeMail(f"{path.name}: Tidegate-Delivery: {delivery!r} is no delivery key")
    if not as_of.endswith("T23:59:59.999Z"):
        raise StrangeMail(f"{path.name}: Tidegate-As-Of: {as_of!r} is not the end of a day")
    return Mail(campaign, int(address[1]), delivery.rsplit("/", 1)[1], date.fromisoformat(as_of[:10]))
