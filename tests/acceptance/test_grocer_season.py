"""The seasons themselves, through services and processes of their own: nothing missing, nothing extra, none twice."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from examples.grocer import data, demo
from examples.grocer.stage import Mode, Plan

LEASE = timedelta(seconds=3)
KILL_EVERY = timedelta(seconds=5)


def season(
    plan: Plan, window: data.Window, kill_every: timedelta | None, wipe_every: timedelta | None = None
) -> demo.Outcome:
    """One replay; its days and notes go to the test's captured output."""
    return demo.perform(plan, window, kill_every, print, print, wipe_every)


@pytest.mark.long(seconds=150)
@pytest.mark.timeout(900)
def test_thirteen_weeks_give_everybody_exactly_what_they_should_have(tmp_path: Path) -> None:
    outcome = season(Plan(tmp_path / "demo"), data.THIRTEEN_WEEKS, None)
    assert outcome.summary.differences == ()
    assert (outcome.summary.total.expected, outcome.summary.total.found) == (5380, 5380)


@pytest.mark.long(seconds=100)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", list(Mode))
def test_a_fortnight_gives_the_same_mails_while_workers_are_killed(tmp_path: Path, mode: Mode) -> None:
    """In one mode passes read the user cache and Elasticsearch too, in the other one MongoDB alone."""
    plan = Plan(tmp_path / "demo", mode, LEASE, chaotic=True, any_path=mode is Mode.PROCFILE)
    outcome = season(plan, data.FORTNIGHT, KILL_EVERY)
    assert outcome.summary.differences == ()
    assert outcome.summary.total.found == 3349
    assert outcome.kills >= 1


@pytest.mark.long(seconds=60)
@pytest.mark.timeout(900)
def test_a_fortnight_gives_the_same_mails_without_user_cache_and_elasticsearch(tmp_path: Path) -> None:
    off = frozenset({"cache", "elastic"})
    outcome = season(Plan(tmp_path / "demo", any_path=True, without=off), data.FORTNIGHT, None)
    assert outcome.summary.differences == ()
    assert outcome.summary.total.found == 3349


@pytest.mark.long(seconds=60)
@pytest.mark.timeout(900)
def test_a_fortnight_gives_the_same_mails_while_user_cache_and_elasticsearch_are_wiped(tmp_path: Path) -> None:
    outcome = season(Plan(tmp_path / "demo", any_path=True), data.FORTNIGHT, None, timedelta(seconds=3))
    assert outcome.summary.differences == ()
    assert outcome.summary.total.found == 3349
    assert {"cache", "elastic"} <= set(outcome.wiped)
