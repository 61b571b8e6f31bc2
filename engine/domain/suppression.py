"""Suppressed addresses: the engine no longer sends to them because mail to them bounced."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from engine.clock import Instant


@dataclass(frozen=True, slots=True)
class Bounced:
    """A hard bounce: the server refused the envelope `address` for good, with its reason and the message it refused."""

    address: str
    reason: str
    campaign: str
    message: str


@dataclass(frozen=True, slots=True)
class Suppression:
    """Why an address is suppressed, and since when (system time)."""

    reason: str
    campaign: str
    message: str
    since: Instant


def suppression_key(workspace: str, address: str) -> str:
    """Return the `_id` of an address's suppression. It does not reveal the address, so it may outlive an erased user.

    Case makes no difference: no server in use distinguishes two mailboxes by case.
    """
    return f"{workspace}/{blake2b(address.lower().encode(), digest_size=16).hexdigest()}"
