"""How deliveries go on: of which stays, under which token, to what end, and which of them are a stay's last."""

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
    """A stay ends as completed in the write that settles its last delivery.

    `revision` is that of the campaign by which no message is left; time looks at the stay again at `due_at` (campaign
    time; None: never).
    """

    revision: int
    due_at: Instant | None = None


@dataclass(frozen=True, slots=True)
class Settling:
    """Deliveries of the stays `ids` that came to the same end; `token` is the mark that they were sent under.

    With `completion` the stays end in the same write; without, each is looked at again at once.
    """

    ids: Sequence[str]
    token: str
    settled: Settled
    completion: Completion | None = None


class Unsent(NamedTuple):
    """A queued delivery of `stay` that settles without a send; with `completion` the stay ends in the same write."""

    stay: Versioned
    settled: Settled
    completion: Completion | None = None


@dataclass(frozen=True, slots=True)
class PutBack:
    """Deliveries of the stays `ids`, marked with `token`, that are queued again, to be tried after `after`.

    `after` is system time, by MongoDB's clock; the stays are looked at at campaign time `at`: a look while they were
    attempting had to wait, whatever had changed. `counted` tells that the attempt is one of the few that a delivery
    has, `held` how many in a row were not the recipient's fault.
    """

    ids: Sequence[str]
    token: str
    after: timedelta
    at: Instant
    counted: bool = True
    held: int = 0


End: TypeAlias = Settling | PutBack
