"""How the parts of the installation are, from what was measured of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from engine.decisions.system_health import (
    channel_health,
    fleet_health,
    lane_health,
    producer_health,
    store_health,
    whole_health,
)
from engine.domain.system_view import Level, Verdict

FINE = Verdict(Level.FINE)


def lane(**changes: Any) -> Verdict:
    facts: dict[str, Any] = {
        "alarm": timedelta(seconds=30),
        "waiting": 3,
        "held": 1,
        "oldest": 2.0,
        "dead": 0,
        "fleets": ("fast",),
        "served": True,
        "lane": "fast",
    }
    return lane_health(**{**facts, **changes})


@pytest.mark.parametrize(
    ("changes", "level", "says"),
    [
        ({}, Level.FINE, "3 wait, 1 in work"),
        ({"waiting": 0, "held": 2}, Level.FINE, "2 in work"),
        ({"waiting": 0, "held": 0}, Level.IDLE, "nothing to do"),
        ({"oldest": 15.0}, Level.FINE, "3 wait"),
        ({"oldest": 15.1}, Level.STRAINED, "waited 15s; 30s is too long"),
        ({"oldest": 30.1}, Level.FAILING, "waited 30s, longer than 30s"),
        ({"waiting": 5_000, "oldest": 1.0}, Level.FINE, "5,000 wait"),
        ({"waiting": 0, "oldest": None, "dead": 2}, Level.STRAINED, "2 dead letters"),
        ({"served": False}, Level.FAILING, "3 wait and no living process serves the lane"),
        ({"served": False, "waiting": 0}, Level.STRAINED, "no living process serves the lane"),
        ({"waiting": None}, Level.UNKNOWN, "not known"),
    ],
)
def test_a_lane_is_judged_by_how_long_its_work_has_waited_not_by_how_much_there_is(
    changes: dict[str, Any], level: Level, says: str
) -> None:
    verdict = lane(**changes)
    assert verdict.level is level
    assert says in verdict.why


def test_an_unserved_lane_names_the_command_that_serves_it() -> None:
    assert lane(served=False).remedy == "start one: tidegate worker fast"
    assert "policies/lanes.yaml" in lane(served=False, fleets=()).remedy


@pytest.mark.parametrize(
    ("alive", "busy", "notes", "level"),
    [
        (0, 0, (), Level.FAILING),
        (1, 0, (), Level.STRAINED),
        (2, 0, (), Level.IDLE),
        (2, 3, (), Level.FINE),
        (2, 3, ("niceness 5 wants a restart",), Level.STRAINED),
    ],
)
def test_a_fleet_lacks_processes_or_follows_the_policies(
    alive: int, busy: int, notes: tuple[str, ...], level: Level
) -> None:
    verdict = fleet_health(name="fast", wanted=2, alive=alive, threads=8, busy=busy, notes=notes)
    assert verdict.level is level


@pytest.mark.parametrize(
    ("name", "ping", "failed", "limit", "level"),
    [
        ("mongodb", 0.001, 0.0, None, Level.FINE),
        ("mongodb", None, 0.0, None, Level.FAILING),
        ("broker", None, 0.0, None, Level.FAILING),
        ("cache", None, 0.0, None, Level.STRAINED),
        ("elasticsearch", None, 0.0, None, Level.STRAINED),
        ("mongodb", 0.3, 0.0, None, Level.STRAINED),
        ("mongodb", 0.001, 0.2, None, Level.STRAINED),
        ("mongodb", 0.001, 0.0, 0.0, Level.STRAINED),
        ("mongodb", 0.001, 0.0, 0.5, Level.FINE),
    ],
)
def test_a_store_that_nothing_goes_on_without_fails_and_others_strain(
    name: str, ping: float | None, failed: float, limit: float | None, level: Level
) -> None:
    assert store_health(name=name, ping=ping, failed=failed, gate_limit=limit).level is level


@pytest.mark.parametrize(("lag", "level"), [(0.0, Level.FINE), (11.0, Level.STRAINED), (61.0, Level.FAILING)])
def test_the_feed_is_judged_by_how_far_it_is_behind(lag: float, level: Level) -> None:
    assert producer_health(name="feed", alive=1, lag=lag, leads=True).level is level


def test_a_clock_that_nobody_runs_fails_with_the_command() -> None:
    verdict = producer_health(name="clock", alive=0, lag=None, leads=False)
    assert verdict.level is Level.FAILING
    assert verdict.remedy == "start one: tidegate clock run"


@pytest.mark.parametrize(
    ("rates", "level"),
    [
        ({}, Level.IDLE),
        ({"sent": 100.0}, Level.FINE),
        ({"sent": 80.0, "failed": 20.0}, Level.STRAINED),
        ({"sent": 10.0, "retried": 90.0}, Level.FAILING),
        ({"skipped": 5.0}, Level.IDLE),
    ],
)
def test_a_channel_is_judged_by_the_share_of_refusals(rates: dict[str, float], level: Level) -> None:
    assert channel_health(rates).level is level


def test_the_whole_is_as_its_worst_part_and_names_the_worst_three() -> None:
    parts = [
        ("lane a", FINE),
        ("lane b", Verdict(Level.STRAINED, "b is late")),
        ("store c", Verdict(Level.FAILING, "c is away", "mend c")),
        ("lane d", Verdict(Level.STRAINED, "d is late")),
        ("lane e", Verdict(Level.STRAINED, "e is late")),
    ]
    assert whole_health(parts) == Verdict(
        Level.FAILING, "store c: c is away; lane b: b is late; lane d: d is late; and 1 more", "mend c"
    )
    assert whole_health([("a", FINE), ("b", Verdict(Level.IDLE))]).level is Level.FINE
    assert whole_health([("b", Verdict(Level.IDLE))]).level is Level.IDLE
