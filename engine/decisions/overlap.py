"""Decide what becomes of a pass whose time comes while an earlier run of its campaign is still open. Pure.

The profile's `overlap` says so. Whatever it says, no user is missed: a pass looks for everybody whom time has let in
since the last *decided* pass, so a pass that is left out or dropped leaves its users to the next one.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from engine.clock import Instant
from engine.domain.work import Run, RunKind
from engine.policy.models import Overlap


class Pass(StrEnum):
    """What happens to a pass that overlaps open runs of its campaign."""

    LEFT_OUT = "left_out"
    """It is left out; the next one comes at its regular time."""
    WAITS = "waits"
    """It starts as soon as the open runs are decided; more than one never waits."""
    TAKES_OVER = "takes_over"
    """The unclaimed slices of the open runs are dropped, and it starts at once."""


def overlapping(overlap: Overlap, open_runs: Iterable[Run], *, time_is_set: bool) -> Pass:
    """Return what becomes of a pass while these runs of its campaign are open (at least one).

    While campaign time is set by a person, who waits for what it brings, no pass is left out: no other would follow. A
    pass takes over only if every open run may be dropped; otherwise it waits.
    """
    if overlap is Overlap.SKIP and not time_is_set:
        return Pass.LEFT_OUT
    if overlap is Overlap.NEWEST and all(map(may_be_dropped, open_runs)):
        return Pass.TAKES_OVER
    return Pass.WAITS


def may_be_dropped(run: Run) -> bool:
    """Return whether the next pass covers what is left of a run.

    It covers a pass that looks for what time has brought up since the last decided pass, and a run over idle
    enrolments. It does not cover a launch, a full pass, or an evaluation that a command requires. A pass that took over
    from a dropped one is decided first: otherwise passes that take longer than their interval would never reach the
    slices that come last.
    """
    if run.kind is RunKind.IDLE:
        return True
    return run.kind is RunKind.PASS and run.after is not None and not run.takes_over


def last_slot(due_at: Instant, every: int, now: Instant) -> Instant:
    """Return the latest regular time of a pass up to `now`: the first is `due_at`, one follows each `every` ms."""
    return due_at + (now - due_at) // every * every
