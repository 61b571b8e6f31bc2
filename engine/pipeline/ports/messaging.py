"""What wakes the clock and the workers up; any message may be lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol


class Wakeup(Protocol):
    """Wake up the clock; a wake-up may be lost."""

    def ring(self) -> None: ...


class Messenger(Protocol):
    """Enqueue work for the actors; a message may be lost, delayed or duplicated."""

    def process(self, pieces: Sequence[tuple[str, str]]) -> None:
        """Enqueue deciding slices, given as (slice id, lane)."""

    def deliver(self, pieces: Sequence[tuple[str, str]]) -> None:
        """Enqueue delivering slices, given as (slice id, lane)."""

    def plan(self, run_id: str) -> None:
        """Enqueue the cutting of a run into slices."""

    def finish(self, run_id: str) -> None:
        """Enqueue the check whether a run is decided."""

    def recheck(self) -> None:
        """Enqueue the evaluation of the users who changed."""

    def warm(self, workspace: str) -> None:
        """Enqueue the loading of a workspace's user cache."""

    def index(self, requests: Sequence[str], *, in_turn: bool = False) -> None:
        """Enqueue these index requests (ids); with `in_turn` the worker does them even while mails go out."""


class SendRates(Protocol):
    """Reserve sends of a channel for all processes together (`engine.stores.redis.send_rate`)."""

    def take(self, channel: str, count: int, per_second: float, longest: float) -> tuple[bool, float] | None: ...


class WakeupWaiter(Protocol):
    """Wait for a wake-up of the clock."""

    def wait(self, longest: timedelta) -> bool: ...
