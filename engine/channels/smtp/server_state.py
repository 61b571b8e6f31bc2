"""The state of the SMTP server that a process sends through, shared by all its threads and connections."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from engine.domain.delivery import Cause, Retry

DISTRUSTED_FOR: Final = 3_600.0
"""Seconds without PIPELINING after it seems to have broken: a server that does break on it costs one try an hour."""

FEWER_FOR: Final = 60.0
"""Seconds without a further connection after the server refused one beside those it had taken."""


AWAY_FOR: Final = 2.0
"""Seconds without any try after the server could not be reached."""


@dataclass(slots=True)
class ServerState:
    """What we know about the server, in plain fields: each is written whole, and a stale read costs at most one try.

    `pipelines` says that PIPELINING has proved to work, including a group of commands after a body. `distrusted_until`,
    `fewer_until` and `closed_until` are monotonic seconds; `closed` is the outcome of every mail until `closed_until`.
    """

    pipelines: bool = False
    distrusted_until: float = 0.0
    fewer_until: float = 0.0
    closed_until: float = 0.0
    closed: Retry | None = None

    @property
    def distrusted(self) -> bool:
        """Whether to avoid PIPELINING for now."""
        return time.monotonic() < self.distrusted_until

    def distrust(self) -> None:
        """Note that PIPELINING seems to have broken a dialogue."""
        self.distrusted_until = time.monotonic() + DISTRUSTED_FOR

    @property
    def takes_more(self) -> bool:
        """Whether a further connection may be tried beside the open ones."""
        return time.monotonic() >= self.fewer_until

    def takes_no_more(self) -> None:
        """Note that the server refused a connection beside the open ones."""
        self.fewer_until = time.monotonic() + FEWER_FOR

    def close(self, outcome: Retry) -> None:
        """Note that no connection can be opened: nobody tries again for a moment, so no other sender has the same wait.

        If the server refuses us (`Cause.US`), nobody tries before the outcome's pause is over: servers lock accounts
        for less.
        """
        pause = outcome.after.total_seconds() if outcome.cause is Cause.US else AWAY_FOR
        self.closed, self.closed_until = outcome, time.monotonic() + pause

    @property
    def refusal(self) -> Retry | None:
        """The outcome of each mail while the server is closed to us; None if it may be tried."""
        return self.closed if time.monotonic() < self.closed_until else None
