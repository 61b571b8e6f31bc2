"""How deliveries settle: of which stays, under which token, to what end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.domain.enrolment import Settled


@dataclass(frozen=True, slots=True)
class Settling:
    """Deliveries of the stays `ids` that came to the same end; `token` is the mark that they were sent under."""

    ids: Sequence[str]
    token: str
    settled: Settled
