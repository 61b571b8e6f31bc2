"""Counts that always add up (`docs/semantics.md`, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from engine.clock import Instant
from engine.domain.lifecycle import DeliveryState


@dataclass(frozen=True, slots=True)
class Population:
    """How many users a workspace has; `estimated` tells that nobody counted them all."""

    users: int
    estimated: bool

    def at_least(self, users: int) -> Population:
        """Never fewer than were found among them."""
        return self if users <= self.users else Population(users, self.estimated)


@dataclass(frozen=True, slots=True)
class Arm:
    """Those who were treated alike: how many entered, and how many of them converted."""

    entered: int
    converted: int

    @property
    def rate(self) -> float | None:
        """The share that converted; None where nobody entered."""
        return self.converted / self.entered if self.entered else None


@dataclass(frozen=True, slots=True)
class MessageCounts:
    """One message: `decided = queued + attempting + sent + failed + unknown + skipped(reason)`."""

    decided: int
    states: Mapping[str, int]


class Ends(NamedTuple):
    """Deliveries that ended by sending: those that failed, and all of them (`failed` and `sent`)."""

    failed: int = 0
    ended: int = 0

    def since(self, before: Ends) -> Ends:
        """What has come to them since `before`; a replay takes failures back, and that counts as none."""
        return Ends(max(0, self.failed - before.failed), max(0, self.ended - before.ended))


NONE: Final = Ends()
"""No delivery has ended."""


@dataclass(frozen=True, slots=True)
class FailureCount:
    """How many deliveries of a campaign failed for one reason, in which messages, and one of them.

    `example` is the key of the user (`w/h/u`) whose delivery of the message `example_message` failed.
    """

    reason: str
    count: int
    messages: tuple[str, ...]
    example: str
    example_message: str


@dataclass(frozen=True, slots=True)
class CampaignCounts:
    """One campaign: `entered = active + exited(reason)`; messages by name; conversions as a fact beside the exits.

    `holdout` and `converted_holdout` are parts of `entered` and `converted`. `last_entered` is when the last stay
    began.
    """

    entered: int
    active: int
    exited: Mapping[str, int]
    holdout: int
    converted: int
    converted_holdout: int
    messages: Mapping[str, MessageCounts]
    last_entered: Instant | None = None

    @property
    def ends(self) -> Ends:
        """What the error budget is judged by."""
        states = [one.states for one in self.messages.values()]
        failed = sum(one.get(DeliveryState.FAILED.value, 0) for one in states)
        return Ends(failed, failed + sum(one.get(DeliveryState.SENT.value, 0) for one in states))

    @property
    def treated(self) -> Arm:
        """Those who get messages."""
        return Arm(self.entered - self.holdout, self.converted - self.converted_holdout)

    @property
    def held_out(self) -> Arm:
        """Those who get none, to compare with."""
        return Arm(self.holdout, self.converted_holdout)

    @property
    def uplift(self) -> float | None:
        """By how much the rate of those who get messages is above the holdout's; None where there are not both."""
        treated, held = self.treated.rate, self.held_out.rate
        return None if treated is None or held is None else treated - held
