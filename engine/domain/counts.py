"""Counts that always add up (`SEMANTICS` section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MessageCounts:
    """One message: `decided = queued + attempting + sent + failed + unknown + skipped(reason)`."""

    decided: int
    states: Mapping[str, int]


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
    """One campaign: `entered = active + exited(reason)`; messages by name; conversions as a fact beside the exits."""

    entered: int
    active: int
    exited: Mapping[str, int]
    holdout: int
    converted: int
    converted_holdout: int
    messages: Mapping[str, MessageCounts]
