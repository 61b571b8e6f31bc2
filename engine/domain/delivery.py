"""A delivery on its way, and what a channel answers: outcomes are values, exceptions are surprises."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol, TypeAlias

from engine.clock import Instant
from engine.domain.lifecycle import SkipReason


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
    chose it. `token` is the mark of the attempt that is open, None while it is queued. `held` counts the attempts in a
    row that ended for a cause that is not the recipient's. `settled` names the messages of the stay that have settled;
    `active` is False where the stay has ended (the delivery was replayed).
    """

    id: str
    user: str
    version: int
    message: str
    chosen_at: Instant
    attempts: int = 0
    slice: str | None = None
    token: str | None = None
    held: int = 0
    settled: tuple[str, ...] = ()
    active: bool = True


class Cause(StrEnum):
    """Whom a refusal is about: that decides what it costs the delivery, and what a person is told."""

    RECIPIENT = "recipient"
    """This recipient or this mail: the attempt counts, and a delivery has a limited number of them."""
    PROVIDER = "provider"
    """The server is away or busy: no attempt is used up."""
    US = "us"
    """Our sender, log-in or standing: no attempt is used up, and the campaign is stuck until a person mends it."""
    UNSURE = "unsure"
    """A policy whose owner the answer does not tell. While nobody is taken it is about us, though the attempt counts;
    once the server takes other mails of the campaign it is about this one."""


class Bounce(StrEnum):
    """Whether a refusal says that nothing should ever be sent to the address again."""

    NO = "no"
    LIKELY = "likely"
    """It says so without a status code that would prove it: believed once the server has taken another mail."""
    SURE = "sure"


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider took it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now: try again after `after` (system time); `reason` is a short code such as `smtp_451`.

    `cause` is whom it is about, `said` what the provider said, for the person who has to mend it; it holds no address.
    Neither makes two retries unequal.
    """

    after: timedelta
    reason: str
    cause: Cause = field(default=Cause.RECIPIENT, compare=False, repr=False)
    said: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Skipped:
    """It was not sent and never will be, for a reason that is nobody's fault: the address, for instance."""

    reason: SkipReason


@dataclass(frozen=True, slots=True)
class Failed:
    """Never: the provider refused it for good, or it could not be made; `reason` is a short code.

    `bounce` tells whether the address itself is dead.
    """

    reason: str
    bounce: Bounce = field(default=Bounce.NO, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Unknown:
    """The provider may or may not have taken it (the connection broke after the body was sent)."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotBegun:
    """The provider has not been asked: there was no time left for it. It is queued again as it was."""


Outcome: TypeAlias = Sent | Retry | Skipped | Failed | Unknown | NotBegun


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
