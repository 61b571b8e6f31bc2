"""Decide how much of a store's time bulk work may take: additive increase, multiplicative decrease. Pure.

The limit is the mean number of bulk operations at a time, over all processes: at 2, two operations may always run; at
0.25, one may run for a quarter of the time. When the store is slow the limit is halved, beginning at what bulk work
used at that moment; while the store is quick and the limit is used, the limit rises each second: quickly to near
where it stood, then by small steps (Chiu and Jain, "Analysis of the increase and decrease algorithms for congestion
avoidance in computer networks", 1989; the quick part as in CUBIC, RFC 9438). So a short stall, such as a checkpoint,
costs seconds, and many processes find a stable share of one store without knowing what else loads it.
"""

from __future__ import annotations

from typing import Final

from engine.clock import Instant
from engine.domain.gate import GateState, Gauge
from engine.policy.models import Gate

DECREASE: Final = 0.5
"""Factor of the limit when the store is slow."""

STEP: Final = 0.01
GROWTH: Final = 0.05
"""A second in which the store was quick raises the limit by this share of it, at least by `STEP`."""

QUICK_GROWTH: Final = 0.25
NEAR: Final = 0.8
"""Below this share of where the limit stood, it rises by `QUICK_GROWTH` a second."""

FORGET: Final = 0.7
"""Share that remains of where the limit stood when the store is slow again before the limit has come near it."""

FIRST: Final = 1.0
"""What bulk work counts as using, at least, when the store is first slow: reports are half a second old."""

USED: Final = 0.5
"""Share of the limit that must be used before it rises: an unused limit says nothing about the store."""

SMALLEST: Final = 10
"""Users of a gated batch and deliveries of a gated window, at least: smaller ones cost a multiple per user."""


def congestion(gauge: Gauge, rule: Gate) -> str | None:
    """Return why the store counts as slow, with the measurement and the limit; None if it does not."""
    if gauge.p95 is not None and gauge.p95 > rule.latency.total_seconds():
        return f"the probe's p95 is {gauge.p95 * 1e3:.3g} ms, above {rule.latency.total_seconds() * 1e3:.3g} ms"
    if gauge.lag is not None and gauge.lag > rule.lag.total_seconds():
        return f"a secondary is {gauge.lag:.3g} s behind, more than {rule.lag.total_seconds():.3g} s"
    if rule.queue is not None and gauge.queue is not None and gauge.queue > rule.queue:
        return f"{gauge.queue} operations wait in the server's queue, more than {rule.queue}"
    return None


def adjusted(state: GateState, gauge: Gauge, rule: Gate, *, used: float, wanted: int, now: Instant) -> GateState:
    """Return the state after a second in which bulk work used `used` seconds of the store.

    `wanted` is the number of threads of all processes that have bulk work; without any, nothing changes. Once the
    limit would allow that many operations at a time, there is no limit any more.
    """
    if wanted == 0:
        return state
    slow = congestion(gauge, rule)
    if slow is not None:
        before = max(FIRST, used) if state.limit is None else min(state.limit, max(used, USED * state.limit))
        was = before if before >= NEAR * state.was else max(before, FORGET * state.was)
        return GateState(max(rule.at_least, before * DECREASE), now, slow, was)
    if state.limit is None or used < USED * state.limit:
        return state
    limit = state.limit + max(STEP, (QUICK_GROWTH if state.limit < NEAR * state.was else GROWTH) * state.limit)
    if limit >= wanted:
        return GateState(None, now, "the store has been quick", state.was)
    return GateState(limit, now, "the store is quick", state.was)


def share(limit: float | None, wanted: int, wanted_by_all: int) -> float | None:
    """Return a process's part of `limit`, by the threads that want to work; None without a limit."""
    if limit is None:
        return None
    return limit * max(1, wanted) / max(1, wanted, wanted_by_all)


def gated_size(size: int, seconds_each: float | None, quantum: float) -> int:
    """Return how many of `size` users to work on at once so that one operation takes about `quantum` seconds.

    `seconds_each` is the measured time of a user; without a measurement the size is the smallest.
    """
    fitting = SMALLEST if seconds_each is None else quantum / max(seconds_each, 1e-9)
    return min(size, max(SMALLEST, int(fitting)))
