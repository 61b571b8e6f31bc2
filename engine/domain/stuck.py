"""Why a campaign cannot go on by itself: one reason for each kind of obstacle, each kept by whoever notices it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from engine.clock import Instant


class StuckBy(StrEnum):
    """What keeps a campaign from going on.

    `file`: its file does not fit its workspace; `slice`: evaluating or sending a slice keeps failing; `run`: planning
    or closing a run keeps failing; `tick`: the clock cannot do its part; `change`: evaluating users who changed keeps
    failing; `sender`: the provider refuses the sender.

    The clock sets and clears all of these but `change` and `sender`, which the workers do.
    """

    FILE = "file"
    SLICE = "slice"
    RUN = "run"
    TICK = "tick"
    CHANGE = "change"
    SENDER = "sender"


@dataclass(frozen=True, slots=True)
class Stuck:
    """One obstacle: the reason, which a person can act on and which holds no personal data, and since when.

    `since` is system time (ms).
    """

    reason: str
    since: Instant
