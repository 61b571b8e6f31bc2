"""An enrolment: one document with the state of a user in a campaign and every message sent in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.clock import Instant
from engine.domain.keys import suffix_of_enrolment
from engine.domain.lifecycle import DeliveryState, EnrolmentState, ExitReason


@dataclass(frozen=True, slots=True)
class Outgoing:
    """The one delivery in progress, `queued` or `attempting`.

    `not_before` is campaign time (quiet hours, caps); `retry_at` is system time (back-off of a retry). `attempts`
    counts finished attempts. `token` names the slice, attempt and window that marked the delivery; `slice` is the slice
    that chose it.
    """

    message: str
    state: DeliveryState
    chosen_at: Instant
    not_before: Instant
    attempts: int = 0
    retry_at: Instant | None = None
    token: str | None = None
    slice: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """One settled delivery; `at` is campaign time."""

    message: str
    state: DeliveryState
    at: Instant
    reason: str | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Enrolment:
    """One enrolment of one user in one campaign. All instants are campaign time.

    `version` rises with each write. A write names the version that it read, and changes nothing if another write came
    first. `settled_at` is the time of the last settled delivery; `revision` is the campaign's revision at the last
    evaluation that wrote.
    """

    id: str
    workspace: str
    campaign: str
    user: str
    entry: int
    state: EnrolmentState
    entered_at: Instant
    revision: int
    version: int
    settled_at: Instant | None = None
    ended_at: Instant | None = None
    reason: ExitReason | None = None
    detail: str | None = None
    due_at: Instant | None = None
    holdout: bool = False
    converted_at: Instant | None = None
    outgoing: Outgoing | None = None
    settled: tuple[Settled, ...] = field(default=())

    @property
    def suffix(self) -> str:
        """The user's suffix, `h/u`."""
        return suffix_of_enrolment(self.id)

    @property
    def active(self) -> bool:
        """Whether the user is in the campaign."""
        return self.state is EnrolmentState.ACTIVE

    @property
    def idle_since(self) -> Instant:
        """The later of entry and last settled delivery; inactivity and waits count from it."""
        return max(self.entered_at, self.settled_at or 0)

    def has_settled(self, names: frozenset[str]) -> bool:
        """Whether a message has settled in this enrolment under one of its `names`."""
        return any(delivery.message in names for delivery in self.settled)


@dataclass(frozen=True, slots=True)
class EnrolmentChange:
    """The changes that one decision writes to an existing enrolment, which was read at `version`.

    `due_at` None means that time alone triggers no evaluation. `exit` ends the enrolment at `as_of`. `outgoing` is a
    newly chosen message; `settled` is a message that settles in the same write (skipped).
    """

    id: str
    version: int
    revision: int
    as_of: Instant
    due_at: Instant | None
    exit: ExitReason | None = None
    detail: str | None = None
    outgoing: Outgoing | None = None
    settled: Settled | None = None
    converted_at: Instant | None = None
