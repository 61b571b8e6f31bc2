"""A channel is a name and a `send`: the contract that every provider's adapter keeps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from engine.domain.delivery import Envelope, Outcome


class Channel(Protocol):
    """What the deliver step needs of a provider. One instance serves all threads of a process."""

    @property
    def name(self) -> str:
        """The word that campaign files use, e.g. `email`."""

    @property
    def limit(self) -> timedelta:
        """The longest that the attempt for one envelope may take (system time).

        A delivery that is `attempting` for longer was left by a crash: the next sender that comes to it settles it.
        """

    @property
    def answers_for_keys(self) -> bool:
        """Whether `find` can tell: then a crash in the middle of an attempt is settled exactly."""

    def send(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        """Attempt each envelope once; one outcome per envelope, in order.

        A provider's answer, whatever it is, and a network that fails are outcomes: this never raises for them. An
        envelope whose key the provider already has is `Sent` and is not sent again where `answers_for_keys`.
        """

    def find(self, key: str) -> bool | None:
        """Whether the provider has the delivery `key`: True, False (surely not), None (cannot tell)."""

    def close(self) -> None:
        """Give back connections and files; safe twice."""
