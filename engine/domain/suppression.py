"""Addresses to which nothing is sent any more, because mail to them bounced."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from engine.clock import Instant


@dataclass(frozen=True, slots=True)
class Bounced:
    """A hard bounce: the envelope `address` that a server refused for good, in answer to what, and how it said so."""

    address: str
    reason: str
    campaign: str
    message: str


@dataclass(frozen=True, slots=True)
class Suppression:
    """Why nothing is sent to an address, and since when (system time)."""

    reason: str
    campaign: str
    message: str
    since: Instant


def suppression_key(workspace: str, address: str) -> str:
    """The `_id` of an address's suppression. It tells nobody the address, so it may outlive the user who is erased.

    Capitals make no difference: no server in use keeps two mailboxes apart by them.
    """
    return f"{workspace}/{blake2b(address.lower().encode(), digest_size=16).hexdigest()}"
