"""Enqueue stored index requests: many at once, or one now and then while mails go out.

Searches can wait, because users who are not indexed yet are found by other means. A campaign's mails should not wait.
If a worker gets a request for a whole range of users while mails go out, it puts the request off until its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, Protocol

from engine.clock import Clock
from engine.pipeline.ports.messaging import Messenger

UNHEARD: Final = timedelta(minutes=2)
"""Age at which a request is enqueued again: its message was lost, or Elasticsearch is away."""

MOST: Final = 256
"""Most requests enqueued at once."""

BETWEEN: Final = 4.0
"""Seconds between two turns while mails go out. A turn is some thousand users; turns take a tenth of two processors."""


class WaitingRequests(Protocol):
    """Stored requests (`engine.stores.mongo.index_requests`)."""

    def any(self) -> bool:
        """Whether any request is waiting."""

    def unheard(self, after: timedelta, limit: int) -> list[str]:
        """Return ids of requests enqueued longer ago than `after`, or put off; mark them as enqueued now."""


class IndexTurns:
    """Enqueue waiting index requests; the clock runs it now and then."""

    def __init__(
        self, requests: WaitingRequests, mails_go_out: Callable[[], bool], messenger: Messenger, clock: Clock
    ) -> None:
        self._requests = requests
        self._mails_go_out = mails_go_out
        self._messenger = messenger
        self._clock = clock
        self._turn = float("-inf")

    def run(self) -> Sequence[str]:
        """Enqueue waiting requests; return their ids."""
        if not self._requests.any():
            return ()
        if not self._mails_go_out():
            requests = self._requests.unheard(UNHEARD, MOST)
            self._messenger.index(requests)
            return requests
        now = self._clock.monotonic()
        if now - self._turn < BETWEEN:
            return ()
        requests = self._requests.unheard(UNHEARD, 1)
        if requests:
            self._turn = now
            self._messenger.index(requests, in_turn=True)
        return requests
