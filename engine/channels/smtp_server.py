"""What a process remembers of the one SMTP server that it sends through, for all its threads and connections."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from engine.domain.delivery import Cause, Retry

DISTRUSTED_FOR: Final = 3_600.0
"""Seconds without PIPELINING after it seems to have broken: a server that does break on it costs a try an hour."""

FEWER_FOR: Final = 60.0
"""Seconds in which no further connection is tried after the server refused one beside those that it had taken."""


AWAY_FOR: Final = 2.0
"""Seconds in which nobody tries a server that could not be reached."""


@dataclass(slots=True)
class ServerState:
    """Plain fields: each is written whole, and a thread that reads the one before loses a try at most.

    `pipelines` says that PIPELINING has proved to work, a group of commands behind a body included. `distrusted_until`,
    `fewer_until` and `closed_until` are monotonic seconds; `closed` is the outcome that every mail has until then.
    """

    pipelines: bool = False
    distrusted_until: float = 0.0
    fewer_until: float = 0.0
    closed_until: float = 0.0
    closed: Retry | None = None

    @property
    def distrusted(self) -> bool:
        """Whether PIPELINING is not to be used for now."""
        return time.monotonic() < self.distrusted_until

    def distrust(self) -> None:
        """PIPELINING seems to have broken a dialogue."""
        self.distrusted_until = time.monotonic() + DISTRUSTED_FOR

    @property
    def takes_more(self) -> bool:
        """Whether a further connection may be tried beside those that are open."""
        return time.monotonic() >= self.fewer_until

    def takes_no_more(self) -> None:
        """It refused a connection beside those that are open."""
        self.fewer_until = time.monotonic() + FEWER_FOR

    def close(self, outcome: Retry) -> None:
        """No connection can be had: for a moment nobody tries again, and no sender waits for what one has waited for.

        Where it refuses us, nobody does before the outcome's pause is over: accounts get locked by less.
        """
        pause = outcome.after.total_seconds() if outcome.cause is Cause.US else AWAY_FOR
        self.closed, self.closed_until = outcome, time.monotonic() + pause

    @property
    def refusal(self) -> Retry | None:
        """The outcome that each mail has while the server refuses us; None where it may be asked."""
        return self.closed if time.monotonic() < self.closed_until else None
