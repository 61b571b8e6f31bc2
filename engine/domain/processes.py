"""A process of the engine as the stores know it, on any machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from engine.domain.system_view import ProcessReport


@dataclass(frozen=True, slots=True)
class Seen:
    """A process: `host:pid:chance`, its type (for example `fast`), the lanes it serves, and its last sign of life.

    `since` is ISO 8601; `ago` is the time since its last sign of life. `notes` say, in words, what of the policies it
    does not follow before a restart. `skew` is by how many seconds the process's clock was ahead of MongoDB's at its
    last sign of life (negative: behind), and `report` what it said of itself then.
    """

    id: str
    process: str
    lanes: tuple[str, ...]
    since: str
    ago: timedelta
    notes: tuple[str, ...] = ()
    skew: float = 0.0
    report: ProcessReport = field(default_factory=ProcessReport)
