"""Counts that always add up (`docs/semantics.md`, section 3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from engine.clock import Instant
from engine.domain.lifecycle import DeliveryState


@dataclass(frozen=True, slots=True)
class Population:
    """The number of users of a workspace; `estimated` is True if they were not all counted."""

    users: int
    estimated: bool

    def at_least(self, users: int) -> Population:
        """Return this population, raised to `users` if that many were actually found."""
        return self if users <= self.users else Population(users, self.estimated)


@dataclass(frozen=True, slots=True)
class Arm:
    """One treatment group: how many users entered, and how many of them converted."""

    entered: int
    converted: int

    @property
    def rate(self) -> float | None:
        """The share that converted; None if nobody entered."""
        return self.converted / self.entered if self.entered else None


@dataclass(frozen=True, slots=True)
class MessageCounts:
    """Counts of one message: `decided = queued + attempting + sent + failed + unknown + skipped(reason)`."""

    decided: int
    states: Mapping[str, int]


class Ends(NamedTuple):
    """Counts of deliveries that ended in a send attempt: those that failed, and all of them (`failed` plus `sent`)."""

    failed: int = 0
    ended: int = 0

    def since(self, before: Ends) -> Ends:
        """Return the increase since `before`; 0 if the count fell, because a replay takes failures back."""
        return Ends(max(0, self.failed - before.failed), max(0, self.ended - before.ended))


NONE: Final = Ends()
"""No deliveries have ended."""


@dataclass(frozen=True, slots=True)
class FailureCount:
    """How many deliveries of a campaign failed for one reason, in which messages, with one example.

    `example` is the key of a user (`w/h/u`) whose delivery of the message `example_message` failed.
    """

    reason: str
    count: int
    messages: tuple[str, ...]
    example: str
    example_message: str


@dataclass(frozen=True, slots=True)
class CampaignCounts:
    """Counts of one campaign: `entered = active + exited`, where `exited` has one count for each reason.

    `messages` has the counts of each message, by its name. A conversion is no exit: `converted` counts active and
    ended enrolments. `holdout` is the part of `entered`, and `converted_holdout` the part of `converted`, that is in
    the holdout. `last_entered` is the start of the latest enrolment.
    """

    entered: int
    active: int
    exited: Mapping[str, int]
    holdout: int
    converted: int
    converted_holdout: int
    messages: Mapping[str, MessageCounts]
    last_entered: Instant | None = None

    def faults(self, *, closed: bool = False) -> tuple[str, ...]:
        """Return, in words, which sums are violated; none if all add up. `closed`: nothing of the campaign is open."""
        faults: list[str] = []
        if self.entered != self.active + sum(self.exited.values()):
            faults.append(
                f"{self.entered} entered, but {self.active} are active and {sum(self.exited.values())} exited"
            )
        if self.converted > self.entered or self.holdout > self.entered or self.converted_holdout > self.holdout:
            faults.append("more users converted, or are in the holdout, than entered")
        for name, message in self.messages.items():
            if message.decided != sum(message.states.values()):
                faults.append(f"message {name}: {message.decided} decided, but its states sum to another number")
            if message.decided > self.entered:
                faults.append(f"message {name}: {message.decided} decided for {self.entered} enrolments")
        if closed and (self.active or self.on_their_way):
            faults.append(
                f"it has ended, but {self.active} are active and {self.on_their_way} messages are on their way"
            )
        return tuple(faults)

    @property
    def on_their_way(self) -> int:
        """The number of messages that are queued or being attempted."""
        states = (DeliveryState.QUEUED.value, DeliveryState.ATTEMPTING.value)
        return sum(message.states.get(state, 0) for message in self.messages.values() for state in states)

    @property
    def ends(self) -> Ends:
        """The counts that the engine compares with the error budget."""
        states = [counts.states for counts in self.messages.values()]
        failed = sum(by_state.get(DeliveryState.FAILED.value, 0) for by_state in states)
        return Ends(failed, failed + sum(by_state.get(DeliveryState.SENT.value, 0) for by_state in states))

    @property
    def treated(self) -> Arm:
        """The group that gets messages."""
        return Arm(self.entered - self.holdout, self.converted - self.converted_holdout)

    @property
    def held_out(self) -> Arm:
        """The comparison group, which gets no messages."""
        return Arm(self.holdout, self.converted_holdout)

    @property
    def uplift(self) -> float | None:
        """The treated group's conversion rate minus the holdout's; None unless both groups have users."""
        treated, held = self.treated.rate, self.held_out.rate
        return None if treated is None or held is None else treated - held


@dataclass(frozen=True, slots=True)
class CountedPage:
    """The counts of some adjacent enrolments of a campaign; `last` is the id of the last one, None if none is left."""

    counts: CampaignCounts
    failures: tuple[FailureCount, ...]
    last: str | None


def merged_counts(parts: Iterable[CampaignCounts]) -> CampaignCounts:
    """Return the counts of a campaign whose enrolments were counted in parts."""
    entered = active = holdout = converted = converted_holdout = 0
    exited: Counter[str] = Counter()
    states: dict[str, Counter[str]] = {}
    latest: list[Instant] = []
    for part in parts:
        entered += part.entered
        active += part.active
        holdout += part.holdout
        converted += part.converted
        converted_holdout += part.converted_holdout
        exited.update(part.exited)
        for name, message in part.messages.items():
            states.setdefault(name, Counter()).update(message.states)
        latest += [] if part.last_entered is None else [part.last_entered]
    return CampaignCounts(
        entered=entered,
        active=active,
        exited=dict(exited),
        holdout=holdout,
        converted=converted,
        converted_holdout=converted_holdout,
        messages={name: MessageCounts(sum(counted.values()), dict(counted)) for name, counted in states.items()},
        last_entered=max(latest, default=None),
    )


def merged_failures(parts: Iterable[FailureCount]) -> tuple[FailureCount, ...]:
    """Return failures that were counted in parts by reason, the most frequent first."""
    by_reason: dict[str, list[FailureCount]] = {}
    for part in parts:
        by_reason.setdefault(part.reason, []).append(part)
    merged: list[FailureCount] = []
    for reason, counted in by_reason.items():
        first = min(counted, key=lambda part: (part.example, part.example_message))
        names = sorted({name for part in counted for name in part.messages})
        count = sum(part.count for part in counted)
        merged.append(FailureCount(reason, count, tuple(names), first.example, first.example_message))
    return tuple(sorted(merged, key=lambda failure: (-failure.count, failure.reason)))
