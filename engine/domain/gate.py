"""The gate of a store: how much of its time bulk work may take, what was measured, and which processes share it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from engine.clock import Instant

MONGODB: Final = "mongodb"
"""The store that has a gate."""


class Hold(StrEnum):
    """What a person may set instead of the automatic limit."""

    OPEN = "open"
    CLOSED = "closed"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class Override:
    """A person's setting, in force until `until` (system time, ms); `limit` belongs to `Hold.LIMIT`."""

    hold: Hold
    until: Instant
    why: str
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Gauge:
    """What was measured of a store; None means not measured, or not readable.

    `p50` and `p95` are seconds of the latest probes, without `own`: what the probing process itself waited for a
    processor (p95, s). `lag` is the replication lag (s), `queue` the operations that wait in the server's queue.
    """

    p50: float | None = None
    p95: float | None = None
    lag: float | None = None
    queue: int | None = None
    own: float | None = None


@dataclass(frozen=True, slots=True)
class GateState:
    """The automatic limit, in operations at a time on average (None: no limit), since when and why.

    A limit of 0.25 lets one operation of bulk work run for a quarter of the time. `was` is about where the limit stood
    when the store was last slow: up to near it, the limit rises quickly again.
    """

    limit: float | None = None
    since: Instant = 0
    why: str = "nothing was slow so far"
    was: float = 0.0


@dataclass(frozen=True, slots=True)
class Member:
    """One process that does bulk work, as it reports itself.

    `wanted` is the most threads that had bulk work at once lately. `used` is the time that its bulk work has lately
    taken of the store, in seconds a second.
    """

    id: str
    process: str
    wanted: int
    used: float


@dataclass(frozen=True, slots=True)
class GateView:
    """A gate as all processes see it at `now` (system time by Redis, ms); `gauge` is the controller's latest.

    `state` is None if no decision is recorded, e.g. because Redis has lost it. `controls` says whether the process that
    asked is the one that measures and decides.
    """

    state: GateState | None
    override: Override | None
    gauge: Gauge
    now: Instant
    members: tuple[Member, ...]
    controls: bool = False


def limit_in_force(state: GateState, override: Override | None) -> float | None:
    """Return the limit in force: a person's before the automatic one; None without a limit."""
    if override is None:
        return state.limit
    return {Hold.OPEN: None, Hold.CLOSED: 0.0, Hold.LIMIT: override.limit}[override.hold]
