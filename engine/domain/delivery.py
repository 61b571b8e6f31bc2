"""A delivery on its way, and what a channel answers: outcomes are values, exceptions are surprises."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, Protocol, TypeAlias

from engine.clock import Instant


class Versioned(Protocol):
    """A stay as somebody has read it, of which a write names the version."""

    @property
    def id(self) -> str:
        """The key of the stay."""

    @property
    def version(self) -> int:
        """The version that was read."""


class Delivery(NamedTuple):
    """A delivery on its way, as the deliver step reads it: of the stay `id` at `version`.

    `user` is the user key, `chosen_at` campaign time, `attempts` those that came to an end, `slice` the slice that
    chose it. `token` is the mark of the attempt that is open, None while it is queued.
    """

    id: str
    user: str
    version: int
    message: str
    chosen_at: Instant
    attempts: int = 0
    slice: str | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider took it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now: try again after `after` (system time); `reason` is a short code such as `smtp_451`."""

    after: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Never: the provider refused it for good, or it could not be made; `reason` is a short code."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The provider may or may not have taken it (the connection broke after the body was sent)."""

    reason: str


Outcome: TypeAlias = Sent | Retry | Failed | Unknown


class Envelope(NamedTuple):
    """One finished message, as a channel sends it.

    `key` is the delivery key (idempotency key, and the source of the stable Message-ID); `raw` the whole RFC 5322
    message; `sender` and `recipient` the bare envelope addresses; `clean` says that all line ends of `raw` are CRLF and
    that it ends with one.
    """

    key: str
    sender: str
    recipient: str
    raw: bytes
    clean: bool = False
