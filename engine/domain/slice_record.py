"""What is known of a slice that has ended: when it came, when workers held it, and in which lane."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from engine.clock import Instant
from engine.domain.work import SliceKind


class Turn(NamedTuple):
    """One turn of a slice, in ms since the slice was added.

    From `free` on a worker could claim it, from `claimed` to `ended` one held it. After a back-off a slice is free
    later than its previous turn ended.
    """

    free: int
    claimed: int
    ended: int

    @property
    def wait(self) -> int:
        """Milliseconds from free to claimed; 0 where the clocks of two machines disagree about the order."""
        return max(0, self.claimed - self.free)

    @property
    def held(self) -> int:
        """Milliseconds for which a worker held the slice."""
        return max(0, self.ended - self.claimed)


@dataclass(frozen=True, slots=True)
class SliceRecord:
    """An ended slice, added at `added_at` (system time).

    `lane` is the one where it was enqueued last; None if it never was. `turns` are its first turns, all of them unless
    it had more than the store keeps; `worked` (ms) counts all. `users` is how many a deciding slice read. `first` and
    `until` bound its range. `whole` says that it and its siblings cut the whole hash space: of a delivering slice, that
    the clock added it because its campaign had none.
    """

    id: str
    workspace: str
    campaign: str
    kind: SliceKind
    added_at: Instant
    turns: tuple[Turn, ...]
    worked: int = 0
    lane: str | None = None
    users: int = 0
    suspect: bool = False
    first: str = ""
    until: str = ""
    whole: bool = False

    @property
    def delivers(self) -> bool:
        """Whether the slice delivers; otherwise it decides."""
        return self.kind is SliceKind.DELIVER

    def instants(self) -> Iterator[tuple[Instant, Instant, Instant]]:
        """Yield each turn as instants of system time: free, claimed, ended."""
        for turn in self.turns:
            yield self.added_at + turn.free, self.added_at + turn.claimed, self.added_at + turn.ended


@dataclass(frozen=True, slots=True)
class OpenSlices:
    """Counts of the open slices of one campaign that the same facts route.

    `free` ones could be claimed now, `held` ones are, `put_off` ones wait for their time. `oldest` is how long (s) the
    first of the free ones has been free (None: none is).
    """

    campaign: str
    kind: SliceKind
    suspect: bool
    slow: bool
    free: int
    held: int
    put_off: int
    oldest: float | None


@dataclass(frozen=True, slots=True)
class SliceShare:
    """What a slice has done so far: of its range `[first, until)` up to `cursor`, with its results by name."""

    run: str | None
    kind: SliceKind
    open: bool
    first: str
    until: str
    cursor: str | None
    results: Mapping[str, int]
