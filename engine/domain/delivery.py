"""A delivery in progress, and the outcomes that a channel returns. Outcomes are values; exceptions are unexpected."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol, TypeAlias

from engine.clock import Instant
from engine.domain.lifecycle import SkipReason


class Versioned(Protocol):
    """An enrolment as it was read; a write names the version that was read."""

    @property
    def id(self) -> str:
        """The key of the enrolment."""

    @property
    def version(self) -> int:
        """The version that was read."""


class Delivery(NamedTuple):
    """A delivery in progress, as the deliver step reads it, of the enrolment `id` at `version`.

    `user` is the user key, `chosen_at` is campaign time, `attempts` counts finished attempts, and `slice` is the slice
    that chose the delivery. `token` is the mark of the open attempt, None while the delivery is queued. `held` counts
    consecutive attempts that ended for a cause other than the recipient. `settled` names the settled messages of the
    enrolment. `active` is False if the enrolment has ended (the delivery was replayed).
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
    """What a refusal is about. It decides whether the attempt counts, and what the engine reports to a person."""

    RECIPIENT = "recipient"
    """This recipient or this mail: the attempt counts, and a delivery has a limited number of attempts."""
    PROVIDER = "provider"
    """The server is away or busy: no attempt is used up."""
    US = "us"
    """Our sender, log-in or reputation: no attempt is used up, and the campaign is stuck until a person repairs it."""
    UNSURE = "unsure"
    """A policy refusal that does not say whether it concerns us or this mail. While the server accepts no mail at all,
    it is treated as ours, though the attempt counts. Once the server accepts other mails of the campaign, it
    concerns this mail."""


class Bounce(StrEnum):
    """Whether a refusal means that nothing should ever be sent to the address again."""

    NO = "no"
    LIKELY = "likely"
    """The answer says so, but without a status code that proves it. The engine believes it once the server has accepted
    another mail."""
    SURE = "sure"


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider accepted the message."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The message was not sent; it is tried again once `after` (system time) has passed.

    `reason` is a short code such as `smtp_451`, and `cause` is what the refusal is about. `said` is the provider's
    answer, for the person who has to repair the problem; it contains no address. Two retries are equal even if `cause`
    and `said` differ.
    """

    after: timedelta
    reason: str
    cause: Cause = field(default=Cause.RECIPIENT, compare=False, repr=False)
    said: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Skipped:
    """The message was not sent and never will be, for a reason that is no failure, such as an unusable address."""

    reason: SkipReason


@dataclass(frozen=True, slots=True)
class Failed:
    """Permanent failure: the provider refused the message for good, or it could not be built; `reason` is a short code.

    `bounce` says whether the address itself is dead.
    """

    reason: str
    bounce: Bounce = field(default=Bounce.NO, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Unknown:
    """The provider may or may not have accepted the message (the connection broke after the body was sent)."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotBegun:
    """The provider was not called because no time was left. The delivery is queued again unchanged."""


Outcome: TypeAlias = Sent | Retry | Skipped | Failed | Unknown | NotBegun


class Envelope(NamedTuple):
    """One finished message, as a channel sends it.

    `key` is the delivery key: the idempotency key, and the source of the stable Message-ID. `raw` is the whole RFC 5322
    message. `sender` and `recipient` are the bare envelope addresses. `clean` is True if all line ends of `raw` are
    CRLF and `raw` ends with one.
    """

    key: str
    sender: str
    recipient: str
    raw: bytes
    clean: bool = False
