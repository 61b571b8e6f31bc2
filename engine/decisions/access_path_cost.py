"""Find the cheapest access path to the candidates of a pass. Pure: facts and measured rates in, estimates out.

A path's time has two parts: the users it reads divided by its last measured read rate, and the users it finds divided
by the rate at which users enter. The second part is the same for all paths. The first rates were measured on 2 shared
cores in November 2026 (`docs/architecture.md`); every run that ends corrects them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from engine.domain.work import AccessPath

FIRST_RATES: Final[Mapping[AccessPath, float]] = MappingProxyType(
    {
        AccessPath.SCAN: 60_000.0,
        AccessPath.CACHE: 800_000.0,
        AccessPath.INDEX: 60_000.0,
        AccessPath.LIST: 70_000.0,
        AccessPath.ELASTIC: 60_000.0,
    }
)
"""Users read per second by one worker, before anything was measured."""

LOAD_RATE: Final = 40_000.0
"""Users per second at which a cold cache is loaded: a range scan, and a write of what it found."""

SIEVE_RATE: Final = 400_000.0
"""Users per second that MongoDB itself examines to return matching users in key order. It does this even with an index
on a field, once one batch does not hold all matches (200,000 took 0.5 s)."""

ENTER_RATE: Final = 30_000.0
"""Users per second who enter, with their first message chosen, durably."""

SEND_RATE: Final = 2_000.0
"""Messages per second of one thread over SMTP, before anything was measured."""

START: Final[Mapping[AccessPath, float]] = MappingProxyType({AccessPath.ELASTIC: 0.02, AccessPath.CACHE: 0.005})
"""Seconds that a path takes before its first user: a refresh and a search, or a read of the layout."""

WEIGHT: Final = 0.3
"""Weight of the newest measurement in a rate."""

FEWEST_READ: Final = 2_000
FEWEST_SENT: Final = 200
"""Users that a run must have read, and messages that a slice must have sent, before its rate counts."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates of one worker: users read per second by path, users entered and messages sent per second."""

    read: Mapping[AccessPath, float] = field(default_factory=lambda: FIRST_RATES)
    enter: float = ENTER_RATE
    send: float = SEND_RATE

    def after(self, path: AccessPath, users: int, took: timedelta) -> Rates:
        """Return the rates after a run that read so many users in so much worker time."""
        if users < FEWEST_READ or not took:
            return self
        now = users / took.total_seconds()
        before = self.read.get(path, now)
        return replace(self, read={**self.read, path: (1 - WEIGHT) * before + WEIGHT * now})

    def sent(self, messages: int, took: timedelta) -> Rates:
        """Return the rates after a worker has sent so many messages in so much time."""
        if messages < FEWEST_SENT or not took:
            return self
        return replace(self, send=(1 - WEIGHT) * self.send + WEIGHT * messages / took.total_seconds())


@dataclass(frozen=True, slots=True)
class Choice:
    """The facts that are known before a path is chosen.

    `users` is the number of users of the workspace, and `matches` the number of users who may enter (None: not
    counted). `reads` gives for each possible path how many users it would read; `impossible` gives for the other paths
    why they are not possible. `warm` is the share of the cache that is loaded. `batch` is how many users are read at
    once.
    """

    users: int
    matches: int | None
    reads: Mapping[AccessPath, int]
    impossible: Mapping[AccessPath, str] = field(default_factory=dict)
    warm: float = 1.0
    batch: int = 1_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """One path: the users it reads, its seconds on one worker, its MongoDB operations; or why it is not possible."""

    path: AccessPath
    users: int = 0
    seconds: float = float("inf")
    operations: int = 0
    reason: str = ""

    @property
    def possible(self) -> bool:
        """Whether the path can be used."""
        return not self.reason


def estimates(facts: Choice, rates: Rates) -> tuple[Estimate, ...]:
    """Return every path with its estimate, the quickest first; impossible paths come last."""
    compared = [_estimate(path, facts, rates) for path in AccessPath if path in facts.reads]
    compared.sort(key=lambda estimate: (estimate.seconds, list(AccessPath).index(estimate.path)))
    refused = [Estimate(path, reason=facts.impossible[path]) for path in AccessPath if path in facts.impossible]
    return (*compared, *refused)


def _estimate(path: AccessPath, facts: Choice, rates: Rates) -> Estimate:
    users = facts.reads[path]
    entering = facts.matches if facts.matches is not None else users
    seconds = START.get(path, 0.0) + users / rates.read[path] + min(entering, users) / rates.enter
    batches = -(-users // max(1, facts.batch))
    operations = batches + -(-min(entering, users) // max(1, facts.batch)) * 2
    if path is AccessPath.CACHE:
        cold = users * (1 - facts.warm)
        seconds += cold / LOAD_RATE
        operations += -(-int(cold) // max(1, facts.batch)) - batches
    if path is AccessPath.INDEX and entering > facts.batch:
        seconds += facts.users / SIEVE_RATE
    return Estimate(path, users, seconds, max(1, operations))


def pieces(estimate: Estimate, slice_users: int, in_flight: int) -> int:
    """Return the number of slices for the chosen path: by its time, and enough for all workers that may share it.

    On a path that reads MongoDB, a slice has at most the policy's `slice_users`; the cached scan is much faster.
    """
    full = -(-estimate.users // slice_users)
    by_time = -(-int(estimate.seconds * 1_000) // SLICE_MS)
    return max(1, by_time, min(in_flight, full) if estimate.path is AccessPath.CACHE else full)


SLICE_MS: Final = 750
"""Milliseconds of work in one slice on an idle machine: a small campaign beside a large one waits for one slice."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many workers a launch needs to finish in time, and how long it takes with the existing ones."""

    workers: int
    duration: timedelta
    there_are: int


def capacity(seconds: float, within: timedelta, workers: int) -> Capacity:
    """Return the workers needed to do `seconds` of one worker's work `within` a time, given `workers` existing ones."""
    needed = max(1, -(-int(seconds * 1_000) // max(1, int(within.total_seconds() * 1_000))))
    there = max(1, workers)
    return Capacity(needed, timedelta(seconds=seconds / there), there)
