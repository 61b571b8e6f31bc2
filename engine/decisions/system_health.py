"""Say how each part of the installation is, from what was measured of it. Pure; the map and the metrics show it.

A verdict tells of work that does not move, not of work that is plenty: a lane with a million users to evaluate is fine
as long as its oldest free work is younger than the lane's `alarm`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

from engine.clock import format_duration
from engine.domain.system_view import Level, Verdict

SOON: Final = 0.5
"""Share of an alarm's time from which a part is strained."""

SLOW_PING: Final = 0.25
"""Seconds of one round trip from which a store is strained: the gate's usual `latency`."""

LAG_STRAINED: Final = 10.0
LAG_FAILING: Final = 60.0
"""Seconds by which the feed may be behind the users' changes."""

SOME_FAIL: Final = 0.1
MOST_FAIL: Final = 0.5
"""Shares of a channel's answers that are failures or refusals for now."""

NEEDED: Final = frozenset({"mongodb", "broker"})
"""Stores without which nothing goes on; without the others the engine is slower."""

SHOWN: Final = 3
"""Parts that the verdict of the whole names."""

_ORDER: Final = {Level.IDLE: 0, Level.FINE: 1, Level.UNKNOWN: 2, Level.STRAINED: 3, Level.FAILING: 4}


def lane_health(
    *,
    alarm: timedelta,
    waiting: int | None,
    held: int,
    oldest: float | None,
    dead: int,
    fleets: Iterable[str],
    served: bool,
    lane: str,
) -> Verdict:
    """Return the verdict of a lane.

    `waiting` is its free slices, or its ready messages where it carries no slices (None: nobody knows), `held` how many
    are in work, `oldest` (s) how long the first of the waiting ones has waited, `dead` its dead letters. `served` says
    whether a process that serves the lane is alive.
    """
    if waiting is None:
        return Verdict(Level.UNKNOWN, "what waits here is not known")
    names = ", ".join(fleets)
    if not served:
        start = f"start one: tidegate worker {names.partition(',')[0]}" if names else "policies/lanes.yaml: add a fleet"
        if waiting:
            return Verdict(Level.FAILING, f"{_count(waiting)} and no living process serves the lane", start)
        return Verdict(Level.STRAINED, "no living process serves the lane", start)
    late = oldest or 0.0
    if waiting and late > alarm.total_seconds():
        more = f"more threads or processes for the fleet {names}, or another lane for the campaign"
        return Verdict(Level.FAILING, f"the oldest work has waited {_time(late)}, longer than {_words(alarm)}", more)
    if dead:
        return Verdict(Level.STRAINED, f"{dead:,} dead letters", f"tidegate queue deadletters {lane}")
    if waiting and late > SOON * alarm.total_seconds():
        return Verdict(Level.STRAINED, f"the oldest work has waited {_time(late)}; {_words(alarm)} is too long")
    if not waiting and not held:
        return Verdict(Level.IDLE, "nothing to do")
    return Verdict(Level.FINE, f"{_count(waiting)}, {held:,} in work" if waiting else f"{held:,} in work")


def fleet_health(*, name: str, wanted: int, alive: int, threads: int, busy: int, notes: Iterable[str]) -> Verdict:
    """Return the verdict of a fleet of which the policies want some processes."""
    start = f"tidegate worker {name}; `tidegate status` shows who runs"
    if alive == 0:
        return Verdict(Level.FAILING, "no process of it is alive", start)
    if alive < wanted:
        return Verdict(Level.STRAINED, f"{alive} of {wanted} processes are alive", start)
    told = list(dict.fromkeys(notes))
    if told:
        return Verdict(Level.STRAINED, told[0], "restart the process")
    if busy == 0:
        return Verdict(Level.IDLE, "all threads are idle")
    return Verdict(Level.FINE, f"{busy} of {threads} threads are busy")


def producer_health(*, name: str, alive: int, lag: float | None, leads: bool) -> Verdict:
    """Return the verdict of the clock or the feed; `leads` says whether one of them holds its lease, `lag` is in s."""
    if not leads:
        command = {"clock": "tidegate clock run", "feed": "tidegate feed"}.get(name, f"tidegate {name}")
        effect = {"clock": "no campaign progresses", "feed": "changes of users are not seen"}.get(name, "")
        return Verdict(Level.FAILING, f"no {name} works: {effect}", f"start one: {command}")
    if lag is not None and lag > LAG_STRAINED:
        level = Level.FAILING if lag > LAG_FAILING else Level.STRAINED
        return Verdict(level, f"it is {_time(lag)} behind the changes", "tidegate check")
    return Verdict(Level.FINE, "" if alive == 1 else f"{alive} processes, one of them works")


def store_health(*, name: str, ping: float | None, failed: float, gate_limit: float | None) -> Verdict:
    """Return the verdict of a store; `ping` is None if it does not answer, `gate_limit` None if its gate is open."""
    if ping is None:
        level = Level.FAILING if name in NEEDED else Level.STRAINED
        effect = "nothing goes on without it" if name in NEEDED else "the engine goes on more slowly without it"
        return Verdict(level, f"it does not answer: {effect}", "tidegate check")
    if failed > 0:
        return Verdict(Level.STRAINED, f"{failed:.3g} calls a second fail", "tidegate logs search event:service.lost")
    if gate_limit == 0:
        return Verdict(Level.STRAINED, "its gate is closed: no bulk work begins", "tidegate gate show")
    if ping > SLOW_PING:
        return Verdict(Level.STRAINED, f"a round trip takes {ping * 1e3:,.0f} ms", "tidegate stats")
    if gate_limit is not None:
        return Verdict(
            Level.FINE, f"its gate lets {gate_limit:.3g} bulk operations run at a time", "tidegate gate show"
        )
    return Verdict(Level.FINE)


def channel_health(rates: Mapping[str, float]) -> Verdict:
    """Return the verdict of a channel from its deliveries a second by outcome."""
    bad = rates.get("failed", 0.0) + rates.get("retried", 0.0)
    answered = bad + rates.get("sent", 0.0)
    if answered == 0:
        return Verdict(Level.IDLE, "nothing is being sent")
    share = bad / answered
    if share > SOME_FAIL:
        level = Level.FAILING if share > MOST_FAIL else Level.STRAINED
        return Verdict(level, f"{share:.0%} of the answers are refusals", "tidegate logs search event:delivery.failed")
    return Verdict(Level.FINE)


def whole_health(parts: Iterable[tuple[str, Verdict]]) -> Verdict:
    """Return the verdict of the installation from those of its parts, each with its name, the worst first."""
    ranked = sorted(parts, key=lambda part: -_ORDER[part[1].level])
    bad = [(name, verdict) for name, verdict in ranked if _ORDER[verdict.level] >= _ORDER[Level.UNKNOWN]]
    if not bad:
        busy = any(verdict.level is Level.FINE for _, verdict in ranked)
        return Verdict(Level.FINE if busy else Level.IDLE, "all is well")
    told = "; ".join(f"{name}: {verdict.why}" for name, verdict in bad[:SHOWN])
    more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    return Verdict(bad[0][1].level, f"{told}{more}", bad[0][1].remedy)


def _count(waiting: int) -> str:
    return f"{waiting:,} {'waits' if waiting == 1 else 'wait'}"


def _words(length: timedelta) -> str:
    return format_duration(length)


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else format_duration(timedelta(seconds=round(seconds)))
