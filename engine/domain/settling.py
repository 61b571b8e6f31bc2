"""How a delivery settles: which stay, under which token, to what end."""

from __future__ import annotations

from dataclasses import dataclass

from engine.domain.enrolment import Settled


@dataclass(frozen=True, slots=True)
class Settling:
    """One delivery of the stay `id` at its end; `token` is the mark it was sent under (empty where none was)."""

    id: str
    token: str
    settled: Settled
