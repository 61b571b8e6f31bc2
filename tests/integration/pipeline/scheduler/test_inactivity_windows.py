"""A shorter inactivity window acts at the next pass without a scan, and its effect on the cost is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from engine.cli.campaign_output import report_document
from engine.cli.stats import before_and_after
from tests.support.pipeline_world import START, World

DAY: Final = 86_400_000
NEVER: Final = {"name": "two", "wait": "1d", "when": {"age": {"gte": 99}}}
SERIES: Final = {"campaign": "c", "audience": {"plan": "gold"}, "messages": [{"name": "one"}, NEVER]}
OLD: Final = tuple(f"old{number}" for number in range(5))
MANY: Final = 400


@contextmanager
def profiled(world: World) -> Iterator[list[dict[str, Any]]]:
    """Yield a list that holds what each command on the enrolments examined, once the block has ended."""
    examined: list[dict[str, Any]] = []
    database = world.database
    database.command("profile", 2)
    try:
        yield examined
    finally:
        database.command("profile", 0)
        examined += database["system.profile"].find({"ns": f"{database.name}.enrolments"})
        database["system.profile"].drop()


def staged(make_world: Callable[..., World]) -> World:
    """Users who have been idle for 15 days, and many more for 5 days, under a window of 45 days."""
    world = make_world(inactivity="45d", reconcile="900d")
    world.users(OLD, plan="gold")
    world.start(SERIES)
    world.advance("10d")
    world.users([f"u{number}" for number in range(MANY)], plan="gold")
    world.settle()
    world.after("5d")
    assert {raw["state"] for raw in world.database["enrolments"].find()} == {"active"}
    return world


def test_a_shorter_window_in_yaml_acts_at_the_next_pass_without_a_scan(make_world: Callable[..., World]) -> None:
    world = staged(make_world)
    world.profile(inactivity="12d", reconcile="900d")
    world.reload()
    world.advance("1m")
    with profiled(world) as examined:
        for _ in range(6):
            world.step()
    assert {user: str(world.enrolment("c", user).reason) for user in OLD} == dict.fromkeys(OLD, "inactive")
    assert world.database["enrolments"].count_documents({"state": "active"}) == MANY
    (idle,) = [run for run in world.runs("c") if run["kind"] == "idle"]
    assert (idle["results"]["users"], idle["results"]["exited"]) == (len(OLD), len(OLD))
    assert not [command for command in examined if "COLLSCAN" in command.get("planSummary", "")]
    assert any("idle_since" in command.get("planSummary", "") for command in examined)
    keys = max(command.get("keysExamined", 0) for command in examined)
    assert 0 < keys <= 4 * len(OLD), "each query examines about as many keys as there are idle enrolments"


def test_the_report_shows_evaluations_per_message_before_and_after_the_change(
    make_world: Callable[..., World],
) -> None:
    world = make_world(inactivity="45d", reconcile="1d")
    world.users(OLD, plan="gold")
    world.start(SERIES)
    world.user("late", plan="none")
    world.after("1d")
    world.profile(inactivity="2d", reconcile="1d")
    world.reload()
    world.after("2d")
    world.after("1d")
    record = world.record("c")
    report = world.app.plans.report(record)
    before, after = report.windows
    assert (before.inactivity, after.inactivity) == (timedelta(days=45), timedelta(days=2))
    assert before.policy != after.policy == world.app.policies.version
    assert START <= before.since < after.since
    runs = [run for run in world.runs("c") if run["kind"] not in ("launch", "resume")]
    for cost in report.windows:
        under = [run for run in runs if run["inactivity"] == cost.inactivity // timedelta(milliseconds=1)]
        assert cost.runs == len(under)
        assert cost.evaluated == sum(run["results"].get("users", 0) for run in under)
        assert cost.chosen == sum(run["results"].get("chosen", 0) for run in under)
    shown = report_document(report)["inactivity_windows"]
    assert [(row["inactivity"], row["policy"]) for row in shown] == [("45d", before.policy), ("2d", after.policy)]
    (ranked,) = world.app.statistics.campaigns(5)
    assert ranked.windows == report.windows
    assert before_and_after(ranked.windows).startswith("45d: ")
    assert ", now 2d: " in before_and_after(ranked.windows)
