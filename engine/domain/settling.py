"""Values for settling deliveries: the enrolments, the token, the result, and whether an enrolment ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, TypeAlias

from engine.clock import Instant
from engine.domain.delivery import Versioned
from engine.domain.enrolment import Settled


@dataclass(frozen=True, slots=True)
class Completion:
    """An enrolment ends as completed in the write that settles its last delivery.

    `revision` is the campaign revision by which no message is left. The enrolment becomes due for evaluation again at
    `due_at` (campaign time; None: never).
    """

    revision: int
    due_at: Instant | None = None


@dataclass(frozen=True, slots=True)
class Settling:
    """Deliveries of the enrolments `ids` that had the same result; `token` is the mark under which they were sent.

    With `completion` the enrolments end in the same write. Without it, each enrolment is evaluated again at once.
    """

    ids: Sequence[str]
    token: str
    settled: Settled
    completion: Completion | None = None


class Unsent(NamedTuple):
    """A queued delivery of an enrolment that settles unsent; with `completion` the same write ends the enrolment."""

    enrolment: Versioned
    settled: Settled
    completion: Completion | None = None


@dataclass(frozen=True, slots=True)
class PutBack:
    """Deliveries of the enrolments `ids`, marked with `token`, that go back to the queue for a retry after `after`.

    `after` is system time, by MongoDB's clock. The enrolments become due for evaluation at campaign time `at`, because
    an evaluation had to wait while they were attempting, whatever had changed. `counted` is True if this attempt uses
    up one of the delivery's limited attempts. `held` counts consecutive attempts that failed through no fault of the
    recipient.
    """

    ids: Sequence[str]
    token: str
    after: timedelta
    at: Instant
    counted: bool = True
    held: int = 0


End: TypeAlias = Settling | PutBack
