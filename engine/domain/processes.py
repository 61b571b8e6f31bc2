"""A process of the engine as the stores know it, on any machine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Seen:
    """A process: `host:pid:chance`, its type (for example `fast`), the lanes it serves, and its last sign of life.

    `since` is ISO 8601; `ago` is the time since its last sign of life. `notes` say, in words, what of the policies it
    does not follow before a restart.
    """

    id: str
    process: str
    lanes: tuple[str, ...]
    since: str
    ago: timedelta
    notes: tuple[str, ...] = ()
