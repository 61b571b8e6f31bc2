"""When kept requests to index are told to workers: at once, or while mails go out one now and then.

Searches can wait, for what is not indexed yet is found otherwise; a campaign's mails should not. A request for a whole
range of users that a worker meets while mails go out is put off until its turn comes here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, Protocol

from engine.clock import Clock
from engine.pipeline.ports import Messenger

UNHEARD: Final = timedelta(minutes=2)
"""After this a request is told again: its message was lost, or Elasticsearch is away."""

MOST: Final = 256
"""Requests that are told at once."""

BETWEEN: Final = 4.0
"""Seconds between two turns while mails go out: some thousand users each, a tenth of two processors."""


class WaitingRequests(Protocol):
    """Kept requests (`engine.stores.index_requests`)."""

    def any(self) -> bool:
        """Whether one is waiting."""

    def unheard(self, after: timedelta, limit: int) -> list[str]:
        """Ids of requests that were told longer ago than `after`, or put off; they count as told now."""


class IndexTurns:
    """What the clock does about requests to index, now and then."""

    def __init__(
        self, requests: WaitingRequests, mails_go_out: Callable[[], bool], messenger: Messenger, clock: Clock
    ) -> None:
        self._requests = requests
        self._mails_go_out = mails_go_out
        self._messenger = messenger
        self._clock = clock
        self._turn = float("-inf")

    def run(self) -> Sequence[str]:
        """Tell workers of requests that wait; gives their ids."""
        if not self._requests.any():
            return ()
        if not self._mails_go_out():
            told = self._requests.unheard(UNHEARD, MOST)
            self._messenger.index(told)
            return told
        now = self._clock.monotonic()
        if now - self._turn < BETWEEN:
            return ()
        told = self._requests.unheard(UNHEARD, 1)
        if told:
            self._turn = now
            self._messenger.index(told, in_turn=True)
        return told
