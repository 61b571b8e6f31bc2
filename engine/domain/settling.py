"""How deliveries that were attempted go on: of which stays, under which token, to what end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from engine.clock import Instant
from engine.domain.enrolment import Settled


@dataclass(frozen=True, slots=True)
class Settling:
    """Deliveries of the stays `ids` that came to the same end; `token` is the mark that they were sent under."""

    ids: Sequence[str]
    token: str
    settled: Settled


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
