"""Choose how many users are read and decided at once. Pure.

A batch may take at most `LONGEST`, so that a stop, a pause or a lost lease is noticed in time. The best of a policy's
candidates depends on the query and the machine, so `Tuner` tries them and keeps the one with the lowest tail cost per
user. `choose` is the guess before there is a tuner: a larger batch costs less per user.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Lock
from typing import Final

LONGEST: Final = timedelta(seconds=1.5)
"""A batch's longest time (`docs/semantics.md`, section 1: a stop flag is checked between batches of at most 1.5 s)."""

WEIGHT: Final = 0.3
"""Weight of the newest measurement in the running mean of seconds per user."""

TRIALS: Final = 5
"""Batches for which a candidate is tried before it is judged: the worst of 5 serves as the tail until there are 20."""

WINDOW: Final = 32
"""Latest batches by which a candidate is judged; of 32, the 95th percentile excludes only the worst."""

MARGIN: Final = 0.1
"""How much better another candidate must be: half of the noise between equal runs (about 20 % on shared cores)."""

FIRST_HORIZON: Final = 64
LONGEST_HORIZON: Final = 1024
"""Batches of a query after which a measurement is forgotten and its candidate tried again.

The number doubles while the answer stays the same: with three candidates, 10 tries in 64 batches become 10 in 1,024
(1 %)."""


def choose(candidates: Sequence[int], seconds_per_user: float | None) -> int:
    """Return the batch size: the largest candidate expected to stay within `LONGEST`, else the smallest.

    Before the first measurement (None) it is the middle candidate.
    """
    ordered = sorted(candidates)
    if seconds_per_user is None:
        return ordered[len(ordered) // 2]
    fitting = [size for size in ordered if size * seconds_per_user <= LONGEST.total_seconds()]
    return fitting[-1] if fitting else ordered[0]


def blended(before: float | None, users: int, took: timedelta) -> float | None:
    """Return the running mean of seconds per user after a batch of `users` that took `took`."""
    if users == 0:
        return before
    now = took.total_seconds() / users
    return now if before is None else (1 - WEIGHT) * before + WEIGHT * now


@dataclass(frozen=True, slots=True)
class Evidence:
    """The measurements of one candidate of one query.

    `batches` and `users` count everything measured. `recent` lists the seconds per user of the latest batches, oldest
    first (at most `WINDOW`); `median` and `tail` (95th percentile) are computed from it. `chosen` is True if the
    candidate is in use.
    """

    size: int
    batches: int
    users: int
    recent: tuple[float, ...]
    chosen: bool

    @property
    def median(self) -> float | None:
        """The median of the latest seconds per user; None before there are any."""
        return quantile(self.recent, 0.5)

    @property
    def tail(self) -> float | None:
        """The 95th percentile of the latest seconds per user; None before there are any."""
        return quantile(self.recent, 0.95)


def quantile(values: Iterable[float], share: float) -> float | None:
    """Return the quantile by nearest rank: the smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def expected(size: int, tails: Mapping[int, float]) -> float:
    """Return the expected seconds of a batch of `size` at its tail; infinite if nothing was measured yet.

    `tails` are seconds per user by size. A size that is not in `tails` gets the cost of the next smaller one, or else
    of the smallest. A larger batch seldom costs more per user, so this guess is cautious.
    """
    if not tails:
        return math.inf
    below = [other for other in tails if other <= size]
    return size * tails[max(below) if below else min(tails)]


@dataclass(slots=True)
class _Candidate:
    """The turns at which the candidate was last requested, and its latest batches: turn and seconds per user."""

    asked: deque[int] = field(default_factory=lambda: deque(maxlen=TRIALS))
    recent: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    batches: int = 0
    users: int = 0

    def tail(self) -> float | None:
        return quantile((seconds for _, seconds in self.recent), 0.95)


@dataclass(slots=True)
class _Query:
    sizes: dict[int, _Candidate] = field(default_factory=dict)
    chosen: dict[tuple[int, ...], int] = field(default_factory=dict)
    turn: int = 0
    horizon: int = FIRST_HORIZON
    since: int = 0
    """The turn at which the answer or the horizon last changed."""

    def forget(self) -> None:
        """Drop measurements older than the horizon; lengthen the horizon if the answer has held for that long."""
        if self.turn - self.since >= self.horizon:
            self.horizon, self.since = min(2 * self.horizon, LONGEST_HORIZON), self.turn
        for candidate in self.sizes.values():
            while candidate.recent and candidate.recent[0][0] <= self.turn - self.horizon:
                candidate.recent.popleft()

    def tails(self) -> dict[int, float]:
        """Return the tail of each candidate measured within the horizon, in seconds per user."""
        return {size: tail for size, measured in self.sizes.items() if (tail := measured.tail()) is not None}

    def untried(self, size: int) -> bool:
        """Whether the candidate was requested fewer than `TRIALS` times within the horizon."""
        asked_at = self.sizes[size].asked
        return len(asked_at) < TRIALS or asked_at[0] <= self.turn - self.horizon

    def best(self, ordered: tuple[int, ...], fitting: Sequence[int], tails: Mapping[int, float]) -> int:
        """Return the candidate in use, or one that is better by more than `MARGIN`; of equal ones the larger."""
        before = self.chosen.get(ordered)
        known = {size: tails[size] for size in fitting if size in tails}
        judged = {size: tail for size, tail in known.items() if len(self.sizes[size].recent) >= TRIALS} or known
        best = min(judged, key=lambda size: (judged[size], -size), default=fitting[0])
        if before is not None:
            better = before not in fitting or (before in judged and judged[best] * (1 + MARGIN) < judged[before])
            if better and best != before:
                self.horizon, self.since = max(FIRST_HORIZON, self.horizon // 4), self.turn
            else:
                best = before
        self.chosen[ordered] = best
        return best

    def counts(self, size: int, users: int) -> bool:
        """Whether a batch is evidence for its size: a smaller candidate would not have read all its users."""
        smaller = [other for other in self.sizes if other < size]
        return users > max(smaller) if smaller else 2 * users >= size


class Tuner:
    """Tries the candidates of each named query and keeps the best one; threads may share it.

    Every candidate that is expected to stay within `LONGEST` is tried with `TRIALS` batches, the smallest first. Then
    the one with the fewest seconds per user at the 95th percentile is used, until another is better by `MARGIN`.
    Measurements are forgotten after a number of batches (the horizon), and the candidate is tried again. A candidate
    that was once too slow therefore returns when the others show that it would fit now. Time and chance are not inputs:
    the same calls give the same answers.

    If a query's cost depends on what is decided with it (reading events or not), it should have a name for each kind.
    With a common tail, the slow kind would hold the quick one back.
    """

    def __init__(self) -> None:
        self._queries: dict[str, _Query] = {}
        self._lock = Lock()

    def choose(self, query: str, candidates: Sequence[int], pace: float | None = None) -> int:
        """Return the size of the next batch of `query`, one of `candidates` (at least one, all above 0).

        `pace` is this campaign's own mean of seconds per user, if known (`blended`), so that a slow campaign among
        quick ones does not get a size that only those can finish in time. If no candidate is expected to stay within
        `LONGEST`, it is the smallest.
        """
        ordered, limit = tuple(sorted(set(candidates))), LONGEST.total_seconds()
        with self._lock:
            state = self._queries.setdefault(query, _Query())
            for size in ordered:
                state.sizes.setdefault(size, _Candidate())
            state.turn += 1
            state.forget()
            tails = state.tails()
            fitting = [size for size in ordered if expected(size, tails) <= limit] or [ordered[0]]
            quick = [size for size in fitting if pace is None or size * pace <= limit] or [ordered[0]]
            chosen = next((size for size in quick if state.untried(size)), None)
            if chosen is None:
                chosen = state.best(ordered, fitting, tails)
            if chosen not in quick:
                chosen = min(quick, key=lambda size: (tails.get(size, math.inf), -size))
            state.sizes[chosen].asked.append(state.turn)
            return chosen

    def measured(self, query: str, size: int, users: int, took: timedelta) -> None:
        """Record a batch of `size` that read `users` and took `took` for reading, deciding and writing together.

        A short batch at the end of a range says little about its size and is ignored, unless it took longer than
        `LONGEST`: then it counts as if it had been full.
        """
        with self._lock:
            state = self._queries.setdefault(query, _Query())
            candidate = state.sizes.setdefault(size, _Candidate())
            seconds = took.total_seconds()
            candidate.batches += 1
            candidate.users += users
            if state.counts(size, users):
                candidate.recent.append((state.turn, seconds / users))
            elif took > LONGEST:
                candidate.recent.append((state.turn, seconds / size))

    def queries(self) -> list[str]:
        """Return the names of the known queries, sorted."""
        with self._lock:
            return sorted(self._queries)

    def evidence(self, query: str) -> list[Evidence]:
        """Return the evidence for each candidate of a query, by size; empty for an unknown query."""
        with self._lock:
            state = self._queries.get(query)
            if state is None:
                return []
            used = set(state.chosen.values())
            return [
                Evidence(
                    size,
                    measured.batches,
                    measured.users,
                    tuple(seconds for _, seconds in measured.recent),
                    size in used,
                )
                for size, measured in sorted(state.sizes.items())
            ]
