"""What becomes of a pass whose campaign still has an open run."""

from __future__ import annotations

import pytest

from engine.decisions.overlap import Pass, last_slot, may_be_dropped, overlapping
from engine.domain.lifecycle import RunState
from engine.domain.work import Run, RunKind
from engine.policy.models import Overlap, Profile


def run(kind: RunKind, *, after: int | None = None, takes_over: bool = False) -> Run:
    return Run("id", "w", "c", kind, 10, RunState.RUNNING, after, takes_over=takes_over)


PASSING = run(RunKind.PASS, after=5)
KEPT = [
    run(RunKind.LAUNCH),
    run(RunKind.RECONCILE),
    run(RunKind.RESUME),
    run(RunKind.STAYS),
    run(RunKind.PASS),  # over everybody: a command wants it
    run(RunKind.PASS, after=5, takes_over=True),
]


def test_a_profile_without_the_key_lets_overlapping_passes_wait() -> None:
    assert Profile(profile="p", lane="fast").overlap is Overlap.QUEUE


@pytest.mark.parametrize(
    ("overlap", "outcome"),
    [(Overlap.SKIP, Pass.LEFT_OUT), (Overlap.QUEUE, Pass.WAITS), (Overlap.NEWEST, Pass.TAKES_OVER)],
)
def test_each_overlap_has_its_outcome(overlap: Overlap, outcome: Pass) -> None:
    assert overlapping(overlap, [PASSING, run(RunKind.IDLE)], time_is_set=False) is outcome


@pytest.mark.parametrize("kept", KEPT)
def test_a_run_that_the_next_pass_does_not_cover_is_never_dropped(kept: Run) -> None:
    assert not may_be_dropped(kept)
    assert overlapping(Overlap.NEWEST, [PASSING, kept], time_is_set=False) is Pass.WAITS


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.QUEUE])
def test_no_pass_is_left_out_while_campaign_time_is_set(overlap: Overlap) -> None:
    assert overlapping(overlap, [PASSING], time_is_set=True) is Pass.WAITS


@pytest.mark.parametrize(("now", "slot"), [(100, 100), (159, 100), (160, 160), (1_000, 1_000), (1_019, 1_000)])
def test_a_pass_that_is_left_out_counts_as_passed_at_its_latest_regular_time(now: int, slot: int) -> None:
    assert last_slot(100, 60, now) == slot
