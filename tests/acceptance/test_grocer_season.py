"""Whole seasons, with their own services and processes: no mail is missing, extra or sent twice."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from examples.grocer import data, demo
from examples.grocer.stage import Mode, Plan

LEASE = timedelta(seconds=3)
KILL_EVERY = timedelta(seconds=5)
WIPE_EVERY = timedelta(seconds=3)


def season(
    plan: Plan, window: data.Window, kill_every: timedelta | None, wipe_every: timedelta | None = None
) -> demo.Outcome:
    """Run one replay; its days and notes go to the test's captured output."""
    return demo.perform(plan, window, kill_every, print, print, wipe_every)


@pytest.mark.long(seconds=150)
@pytest.mark.timeout(900)
def test_thirteen_weeks_send_exactly_the_expected_mails(tmp_path: Path) -> None:
    outcome = season(Plan(tmp_path / "demo"), data.THIRTEEN_WEEKS, None)
    assert outcome.summary.differences == ()
    assert (outcome.summary.total.expected, outcome.summary.total.found) == (5380, 5380)


@pytest.mark.long(seconds=130)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", list(Mode))
def test_killed_workers_change_no_mail_of_a_fortnight(tmp_path: Path, mode: Mode) -> None:
    """One mode has the user cache and Elasticsearch, emptied at random moments; the other runs without them."""
    wiped = mode is Mode.PROCFILE
    off = frozenset[str]() if wiped else frozenset({"cache", "elastic"})
    plan = Plan(tmp_path / "demo", mode, LEASE, chaotic=True, any_path=True, without=off)
    outcome = season(plan, data.FORTNIGHT, KILL_EVERY, WIPE_EVERY if wiped else None)
    assert outcome.summary.differences == ()
    assert outcome.summary.total.found == 3349
    assert outcome.kills >= 1
    assert set(outcome.wiped) >= ({"cache", "elastic"} if wiped else set())
