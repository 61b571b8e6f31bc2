"""Why a campaign cannot go on by itself: one reason per kind of obstacle. The clock or a worker records it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from engine.clock import Instant


class StuckBy(StrEnum):
    """The kind of obstacle that keeps a campaign from going on.

    `file`: its file does not fit its workspace; `slice`: evaluating or sending a slice keeps failing; `run`: planning
    or closing a run keeps failing; `tick`: the clock cannot do its part; `change`: evaluating users who changed keeps
    failing; `sender`: the provider refuses the sender.

    The workers set and clear `change` and `sender`. The clock sets and clears all others.
    """

    FILE = "file"
    SLICE = "slice"
    RUN = "run"
    TICK = "tick"
    CHANGE = "change"
    SENDER = "sender"


@dataclass(frozen=True, slots=True)
class Stuck:
    """One obstacle: a reason, which a person can act on and which contains no personal data, and when it began.

    `since` is system time (ms).
    """

    reason: str
    since: Instant
