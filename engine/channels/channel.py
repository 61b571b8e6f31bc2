"""The contract that every provider's adapter keeps: a channel has a name and a `begin`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol, runtime_checkable

from engine.domain.delivery import Envelope, Outcome


class Flight:
    """A window being sent: the channel puts outcomes in, from any thread; the caller of `begin` takes them out.

    `waiting` counts the envelopes that the provider has not heard of yet, `outstanding` those without an outcome.
    """

    def __init__(self, count: int) -> None:
        self._changed = threading.Condition()
        self._came: list[tuple[int, Outcome]] = []
        self._observer: Callable[[Sequence[tuple[int, Outcome]]], None] | None = None
        self._awaited = 0
        self.waiting = count
        self.outstanding = count

    def take(self) -> list[tuple[int, Outcome]]:
        """Return the outcomes that came since the last call: place of the envelope, outcome."""
        with self._changed:
            came, self._came = self._came, []
        return came

    @property
    def came(self) -> bool:
        """Whether there are outcomes that nobody has taken."""
        return bool(self._came)

    def observe(self, observer: Callable[[Sequence[tuple[int, Outcome]]], None]) -> None:
        """Pass all outcomes to `observer` as they come, earlier ones first; the channel's thread calls it.

        `observer` must be quick, and must not use the flight.
        """
        with self._changed:
            self._observer = observer
            if self._came:
                observer(self._came)

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
        """Add outcomes and set the number of waiting envelopes; the channel calls this."""
        with self._changed:
            self._came += outcomes
            if self._observer is not None:
                self._observer(outcomes)
            self.outstanding -= len(outcomes)
            self.waiting = waiting
            if not self.outstanding or waiting <= self._awaited:
                self._changed.notify_all()


class Begins(Protocol):
    """An object that can begin a window."""

    def begin(self, envelopes: Sequence[Envelope], go_on: Callable[[], bool]) -> Flight:
        """See `Channel.begin`."""


def attempt(channel: Begins, envelopes: Sequence[Envelope]) -> list[Outcome]:
    """Attempt each envelope once and wait for all; return one outcome per envelope, in order."""
    flight = channel.begin(envelopes, lambda: True)
    flight.wait_for_all()
    outcomes = dict(flight.take())
    return [outcomes[place] for place in range(len(envelopes))]


@runtime_checkable
class Resizable(Protocol):
    """A channel whose number of connections follows the number of sending threads."""

    def resize(self, threads: int) -> None:
        """Note that this process has another number of sending threads now."""


class Channel(Protocol):
    """The interface of a provider for the deliver step. One instance serves all threads of a process."""

    @property
    def name(self) -> str:
        """The word that campaign files use, e.g. `email`."""

    @property
    def limit(self) -> timedelta:
        """The longest time that the attempt for one envelope may take (system time)."""

    @property
    def answers_for_keys(self) -> bool:
        """Whether `find` can give an answer: if so, a crash in the middle of an attempt is settled exactly."""

    def begin(self, envelopes: Sequence[Envelope], go_on: Callable[[], bool]) -> Flight:
        """Attempt each envelope once; the flight gets one outcome per envelope, in any order.

        Provider answers and network failures are outcomes: this never raises for them. If `answers_for_keys` is True,
        an envelope whose key the provider already has is `Sent` and is not sent again. The channel calls `go_on` from
        any thread, so it must be cheap; once it returns False, the channel begins no further envelope: the rest are
        `NotBegun`.
        """

    def send(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        """Attempt each envelope once and wait for it; return one outcome per envelope, in order."""

    def find(self, key: str) -> bool | None:
        """Return whether the provider has the delivery `key`: True, False (surely not), None (cannot tell)."""

    def close(self) -> None:
        """Begin nothing more, end what is under way, release connections and files; safe to call twice.

        Afterwards every flight has all its outcomes.
        """
