"""A channel is a name and a `begin`: the contract that every provider's adapter keeps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol

from engine.domain.delivery import Envelope, Outcome


class Flight:
    """A window on its way. Its channel puts outcomes in, from any thread; whoever began it takes them out.

    `waiting` counts the envelopes of which the provider has not heard yet, `outstanding` those without an outcome.
    """

    def __init__(self, count: int) -> None:
        self._changed = threading.Condition()
        self._came: list[tuple[int, Outcome]] = []
        self._awaited = 0
        self.waiting = count
        self.outstanding = count

    def take(self) -> list[tuple[int, Outcome]]:
        """The outcomes that have come since it was called last: place of the envelope, outcome."""
        with self._changed:
            came, self._came = self._came, []
        return came

    @property
    def came(self) -> bool:
        """Whether outcomes have come that nobody has taken."""
        return bool(self._came)

    def wait(self, low: int, within: float) -> None:
        """Wait until at most `low` envelopes are waiting, or none is outstanding, or for `within` seconds."""
        with self._changed:
            self._awaited = low
            self._changed.wait_for(lambda: self.waiting <= low or not self.outstanding, within)

    def wait_for_all(self, within: float | None = None) -> None:
        """Wait until no envelope is outstanding, or for `within` seconds."""
        with self._changed:
            self._awaited = -1
            self._changed.wait_for(lambda: not self.outstanding, within)

    def put(self, outcomes: Sequence[tuple[int, Outcome]], waiting: int) -> None:
        """Outcomes that came, and how many envelopes are waiting now: called by the channel."""
        with self._changed:
            self._came += outcomes
            self.outstanding -= len(outcomes)
            self.waiting = waiting
            if not self.outstanding or waiting <= self._awaited:
                self._changed.notify_all()


class Begins(Protocol):
    """Whatever begins a window."""

    def begin(self, envelopes: Sequence[Envelope], go_on: Callable[[], bool]) -> Flight:
        """See `Channel.begin`."""


def attempt(channel: Begins, envelopes: Sequence[Envelope]) -> list[Outcome]:
    """Attempt each envelope once and wait for all; one outcome per envelope, in order."""
    flight = channel.begin(envelopes, lambda: True)
    flight.wait_for_all()
    outcomes = dict(flight.take())
    return [outcomes[place] for place in range(len(envelopes))]


class Channel(Protocol):
    """What the deliver step needs of a provider. One instance serves all threads of a process."""

    @property
    def name(self) -> str:
        """The word that campaign files use, e.g. `email`."""

    @property
    def limit(self) -> timedelta:
        """The longest that the attempt for one envelope may take (system time)."""

    @property
    def answers_for_keys(self) -> bool:
        """Whether `find` can tell: then a crash in the middle of an attempt is settled exactly."""

    def begin(self, envelopes: Sequence[Envelope], go_on: Callable[[], bool]) -> Flight:
        """Attempt each envelope once; one outcome per envelope comes to the flight, in any order.

        A provider's answer, whatever it is, and a network that fails are outcomes: this never raises for them. An
        envelope whose key the provider already has is `Sent` and is not sent again where `answers_for_keys`. Where
        `go_on` (asked from any thread, cheap) says no, what has not begun is not begun any more: `NotBegun`.
        """

    def send(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        """Attempt each envelope once and wait for it; one outcome per envelope, in order."""

    def find(self, key: str) -> bool | None:
        """Whether the provider has the delivery `key`: True, False (surely not), None (cannot tell)."""

    def close(self) -> None:
        """Begin nothing more, end what is under way, give back connections and files; safe twice.

        Every flight has all its outcomes then.
        """
