"""A process killed, or an exception raised, at any failpoint does not change the final result."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest

from engine import failpoints
from tests.chaos.conftest import ROOT, Drive
from tests.chaos.play import NAME, Performer, Step
from tests.support.pipeline_world import START, World

DAY: Final = 86_400_000
SERIES: Final[tuple[Step, ...]] = (("launch",), ("settle",), ("advance", START + 2 * DAY), ("settle",))
AGAIN: Final[tuple[Step, ...]] = (*SERIES, ("stop",), ("settle",))
ARRIVED: Final = ("u0", "u3", "u9")
ARRIVALS: Final[tuple[Step, ...]] = (
    ("launch",),
    ("settle",),
    ("change", *ARRIVED),
    ("settle",),
    ("stop",),
    ("settle",),
)
POISON: Final[tuple[Step, ...]] = (("launch",), ("settle",))
POISONED: Final = "slice.decided=raise@*~/u3/"
"""Whoever decides about the user u3 fails."""

USERS: Final = tuple(f"u{number}" for number in range(12))
UNSUBSCRIBED: Final = "u5"


@dataclass(frozen=True)
class Play:
    """A campaign, its steps, and the check of each user's final state."""

    campaign: dict[str, Any]
    steps: tuple[Step, ...]
    check: Callable[[World], None]
    always: str = ""


def check_series(world: World) -> None:
    """Check that each user has one enrolment with both messages settled: sent, or skipped by holdout or consent."""
    for user in USERS:
        (enrolment,) = world.enrolments(NAME, user)
        end = ("sent", None)
        if enrolment.holdout:
            end = ("skipped", "holdout")
        elif user == UNSUBSCRIBED:
            end = ("skipped", "suppressed")
        assert world.ends(NAME, user) == [("one", *end), ("two", *end)]
        assert (enrolment.state, enrolment.reason, enrolment.entered_at) == ("ended", "completed", START)
    assert {kind for kind, in_run in runs(world)} == {"launch", "due", "stays"}


def check_again(world: World) -> None:
    """Check that each user has two successive enrolments with one mail in each."""
    for user in USERS:
        enrolments = world.enrolments(NAME, user)
        assert [(enrolment.entry, enrolment.reason) for enrolment in enrolments] == [(1, "completed"), (2, "completed")]
        assert [enrolment.entered_at for enrolment in enrolments] == [START, START + 2 * DAY]
        end = ("skipped", "suppressed") if user == UNSUBSCRIBED else ("sent", None)
        assert [[(delivery.state, delivery.reason) for delivery in enrolment.settled] for enrolment in enrolments] == [
            [end],
            [end],
        ]


def check_arrivals(world: World) -> None:
    """Check that users who match by a change have one enrolment and one mail, and that no other user has any."""
    for user in USERS:
        enrolments = [(enrolment.entry, enrolment.reason) for enrolment in world.enrolments(NAME, user)]
        assert enrolments == ([(1, "completed")] if user in ARRIVED else [])


def check_poison(world: World) -> None:
    """Check that only the enrolment of u3 failed and that every other user got the mail."""
    for user in USERS:
        (enrolment,) = world.enrolments(NAME, user)
        poisoned = user == "u3"
        assert (enrolment.reason, enrolment.detail) == (("failed", "poison") if poisoned else ("completed", None))
        assert [delivery.message for delivery in enrolment.settled] == ([] if poisoned else ["one"])


PLAYS: Final = {
    "series": Play(
        {
            "kind": "one_off",
            "holdout": "50%",
            "messages": [{"name": "one"}, {"name": "two", "wait": "2d"}],
        },
        SERIES,
        check_series,
    ),
    "again": Play({"kind": "continuous", "entry": {"again_after": "2d"}}, AGAIN, check_again),
    "arrivals": Play({"kind": "continuous", "audience": {"plan": "gold"}}, ARRIVALS, check_arrivals),
    "poison": Play({"kind": "one_off"}, POISON, check_poison, always=POISONED),
}

CASES: Final = (
    ("series", "run.started@1"),  # the launch, before the campaign is live
    ("series", "run.started@2"),  # a pass or a due run
    ("series", "plan.sliced@1"),
    ("series", "plan.sliced@2"),
    ("series", "slice.decided@1"),
    ("series", "slice.decided@4"),
    ("series", "enter.inserted@1"),  # entering, and choosing the first message in the same write
    ("series", "enter.inserted@2"),
    ("again", "enter.inserted~/0002"),  # re-entering
    ("again", "enter.reentered@1"),
    ("again", "enter.reentered@2"),
    ("series", "choose.advanced@1"),
    ("series", "choose.advanced~/two"),  # choosing the second message
    ("arrivals", "choose.advanced@1"),  # ending enrolments of an audience that can be left
    ("series", "slice.recorded@1"),
    ("series", "slice.recorded@3"),
    ("series", "slice.checkpointed@1"),
    ("series", "slice.checkpointed@2"),
    ("series", "slice.closed@1"),
    ("again", "slice.closed@4"),
    ("series", "run.decided@1"),
    ("series", "run.decided@2"),
    ("series", "campaign.finished@1"),
    ("again", "campaign.finished@1"),
    ("again", "deliver.skipped@1"),
    ("again", "deliver.skipped@2"),
    ("series", "deliver.marked@1"),
    ("series", "deliver.marked@3"),
    ("series", "deliver.sending@1"),
    ("series", "deliver.sent@1"),
    ("series", "deliver.sent@3"),
    ("again", "deliver.settled@1"),
    ("again", "deliver.settled@3"),
    ("series", "deliver.recovered@1"),
    ("series", "lease.freed@1"),
    ("poison", "lease.freed@1"),
    ("arrivals", "feed.refreshed@1"),
    ("arrivals", "feed.asked@1"),
    ("arrivals", "feed.handled@1"),
    ("arrivals", "look.decided@1"),
    ("poison", "poison.half_written@1"),
    ("poison", "poison.halved@1"),
    ("poison", "poison.halved@2"),
    ("poison", "poison.buried@1"),
)
"""A play, and a point that is passed in it with the passage at which the process ends there."""

BEFORE: Final = {"lease.freed": "slice.decided=kill@2", "deliver.recovered": "deliver.sent=kill"}
"""A point that is only passed after a death, and that death."""


def runs(world: World) -> list[tuple[str, str]]:
    """Return kind and state of every run."""
    return [(raw["kind"], raw["state"]) for raw in world.runs(NAME)]


def staged(make_stage: Callable[..., World], play: Play) -> World:
    """Create the users and the campaign of a play; launch nothing."""
    world = make_stage()
    world.users(USERS)
    world.change(UNSUBSCRIBED, unsubscribed=True)
    world.apply({"campaign": NAME, **play.campaign})
    return world


def check_end(world: World, play: Play) -> None:
    """Check what must hold at the end of any play, and of this one."""
    play.check(world)
    world.check()  # each sent message has exactly one file, and both identities hold
    assert world.state(NAME) == "finished"
    assert {state for _, state in runs(world)} == {"decided"}
    assert world.database["slices"].count_documents({"state": "open"}) == 0
    assert world.database["enrolments"].count_documents({"due_at": {"$lte": world.now}}) == 0


def armed(*points: str) -> str:
    """Return the failpoints as one setting."""
    return ",".join(filter(None, points))


def with_action(case: str, action: str) -> str:
    """Return `point@2` as `point=kill@2`."""
    point = next(point for point in failpoints.POINTS if case.startswith(point))
    return f"{point}={action}{case.removeprefix(point)}"


@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_kill_at_a_crash_point_does_not_change_the_result(
    name: str, case: str, make_stage: Callable[..., World], drive: Drive, recover: Callable[..., Performer]
) -> None:
    play = PLAYS[name]
    world = staged(make_stage, play)
    point = case.partition("@")[0].partition("~")[0]
    if point in BEFORE:
        assert drive.perform(world.settings, play.steps, BEFORE[point])[1] == "signal 9"
    assert drive.perform(world.settings, play.steps, armed(with_action(case, "kill"), play.always))[1] == "signal 9"
    recover(world, play.steps, play.always)
    check_end(world, play)


@pytest.mark.parametrize("point", sorted(failpoints.POINTS))
def test_an_exception_at_a_crash_point_does_not_change_the_result(
    point: str, make_stage: Callable[..., World], drive: Drive, recover: Callable[..., Performer]
) -> None:
    name, case = next(case_ for case_ in CASES if case_[1].startswith(point))
    play = PLAYS[name]
    world = staged(make_stage, play)
    if point in BEFORE:
        assert drive.perform(world.settings, play.steps, BEFORE[point])[1] == "signal 9"
    recover(world, play.steps, armed(with_action(case, "raise"), play.always))
    assert point in failpoints.done()
    check_end(world, play)


def test_an_exception_at_every_point_of_a_series_does_not_change_the_result(
    make_stage: Callable[..., World], recover: Callable[..., Performer]
) -> None:
    play = PLAYS["series"]
    world = staged(make_stage, play)
    passed = {case.partition("@")[0].partition("~")[0] for name, case in CASES if name == "series"}
    points = sorted(passed - {*BEFORE, "campaign.finished"})
    recover(world, play.steps, armed(*(f"{point}=raise@2" for point in points)))
    assert len(failpoints.done()) > 10
    check_end(world, play)


def test_enrolments_left_due_in_a_finished_campaign_are_cleared_when_due(
    make_stage: Callable[..., World], drive: Drive, recover: Callable[..., Performer]
) -> None:
    play = PLAYS["again"]
    world = staged(make_stage, play)
    assert drive.perform(world.settings, play.steps, "campaign.finished=kill")[1] == "signal 9"
    later = (*play.steps, ("advance", START + 9 * DAY), ("settle",))
    recover(world, later)
    check_end(world, play)
    assert world.database["enrolments"].count_documents({"due_at": {"$exists": True}}) == 0


def test_every_crash_point_has_its_cases() -> None:
    covered = {point for point in failpoints.POINTS for _, case in CASES if case.startswith(point)}
    assert covered == failpoints.POINTS


def test_the_page_on_failures_lists_every_crash_point() -> None:
    page = (ROOT / "docs/failure-modes.md").read_text(encoding="utf-8")
    listed = {
        row.split("`")[1] for row in page.partition("## The crash points")[2].splitlines() if row.startswith("| `")
    }
    assert listed == failpoints.POINTS


def test_failpoints_are_read_from_the_environment() -> None:
    """The failpoints come from the environment, as an operator of a test system sets them: the first passage kills."""
    code = "from engine.failpoints import passage; passage('run.decided'); passage('slice.closed', ['w/c/h/u'])"
    points = "run.decided=kill@2,slice.closed=kill~/u"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={"TIDEGATE_FAILPOINTS": points}, check=False)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("wrong", ["nowhere=kill", "run.decided", "run.decided=explode", "run.decided=kill@x"])
def test_a_failpoint_that_cannot_be_read_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="TIDEGATE_FAILPOINTS"):
        failpoints.arm(wrong)
