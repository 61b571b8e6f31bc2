"""Repeated failures are reported: the campaign states the reason, and the log has it once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import pytest

from engine.cli.campaign_output import report_document, show_report
from engine.cli.feed import following
from engine.clock import SystemClock
from engine.domain.stuck import StuckBy
from engine.errors import OperatorError
from engine.pipeline.evaluation import recheck_users
from engine.pipeline.loop_failures import WRITTEN, LoopFailures
from engine.pipeline.scheduler import stuck_campaigns
from engine.pipeline.slices import runner
from engine.stores.mongo.client import Away
from engine.telemetry.events import CollectedEvents, listening
from tests.support.pipeline_shop import hurry
from tests.support.pipeline_world import World

WHY: Final = "the disk is full"
BROKEN: Final = {
    "campaign": "c",
    "messages": [{"name": "one", "body": "{% if user.age > 90 %}{{ 1 | divided_by: 0 }}{% endif %}Hello"}],
}
"""A campaign whose text fails for users above 90."""


def refuse(*_: object, **__: object) -> Any:
    """Raise an error as a full disk, a missing right or a wrong setting does."""
    raise OperatorError(WHY, remedy="make room on it")


def raise_data(*_: object, **__: object) -> Any:
    raise ValueError("someone@example.org is wrong")


@pytest.fixture
def heard() -> Iterator[CollectedEvents]:
    with listening() as occurrence:
        yield occurrence


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world that reports failures at once and retries without a back-off."""
    monkeypatch.setattr(stuck_campaigns, "LASTING", 0.0)
    monkeypatch.setattr(recheck_users, "LASTING", 0.0)
    monkeypatch.setattr(stuck_campaigns, "ATTEMPTS", 1)
    monkeypatch.setattr("engine.decisions.poison.LONGEST_REST", recheck_users.timedelta(0))
    monkeypatch.setattr("engine.pipeline.scheduler.run_attempts.LONGEST_REST", 0.0)
    monkeypatch.setattr("engine.pipeline.scheduler.tick.ASK_AGAIN", 0.0)
    monkeypatch.setattr(recheck_users, "RESTS", recheck_users.timedelta(0))
    monkeypatch.setattr(recheck_users, "EXPIRE_EVERY", 0.0)


def spoiled(world: World, what: str) -> tuple[object, str]:
    """Return the object and its method that must fail."""
    app = world.app
    return {
        "planning a run": (app.run_planner, "candidates"),
        "closing a run": (app.stores.runs, "move"),
        "evaluating a slice": (app.enroller, "batch"),
        "opening the channel": (app, "channel"),
        "launching": (app.run_planner, "start"),
        "finishing": (app.stores.enrolments, "has_open"),
        "evaluating a change": (app.evaluator, "record"),
    }[what]


FAILING: Final = {
    "planning a run": StuckBy.RUN,
    "closing a run": StuckBy.RUN,
    "evaluating a slice": StuckBy.SLICE,
    "opening the channel": StuckBy.SLICE,
    "launching": StuckBy.TICK,
    "finishing": StuckBy.TICK,
}


@pytest.mark.parametrize("what", FAILING)
def test_a_repeated_failure_makes_the_campaign_stuck_with_its_reason_until_mended(
    world: World, monkeypatch: pytest.MonkeyPatch, heard: CollectedEvents, what: str
) -> None:
    world.user("u")
    world.apply({"campaign": "c", "kind": "one_off"})
    world.launch("c")
    monkeypatch.setattr(world.app.slice_deliverer, "channels", world.app.channel)
    with monkeypatch.context() as patch:
        place, method = spoiled(world, what)
        if what == "opening the channel":
            place, method = world.app.slice_deliverer, "channels"
        patch.setattr(place, method, refuse)
        for _ in range(12):
            world.step()
        record = world.record("c")
        assert set(record.stuck_by) == {FAILING[what]}
        assert record.stuck_by[FAILING[what]].reason.endswith(f"{WHY}; make room on it")
        assert [occurrence.fields["text"] for occurrence in heard.of("campaign.stuck")] == [record.stuck]
        assert not list(world.database["slices"].find({"$or": [{"suspect": True}, {"state": "split"}]}))
        assert "stuck" in world.app.explainer.run(record, "u").now
        assert list(world.app.quiescence.stuck()) == [record.uid]
    world.settle()
    assert world.record("c").stuck is None
    assert (world.sent(), world.state("c")) == ([("u", "one")], "finished")
    assert len(heard.of("campaign.unstuck")) <= 1


def test_unevaluable_changes_make_the_campaign_stuck_and_none_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.start({"campaign": "c"})
    world.start({"campaign": "other"})
    uid = world.record("c").uid
    record = world.app.evaluator.record

    def refuse_one(campaign: Any, *more: Any, **named: Any) -> Any:
        return refuse() if campaign.uid == uid else record(campaign, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(world.app.evaluator, "record", refuse_one)
        world.user("u")
        for _ in range(6):
            world.step()
        assert world.record("c").stuck == f"evaluating changed users fails: {WHY}; make room on it"
        assert world.record("other").stuck is None
        assert world.sent() == [("u", "one")], "the other campaign goes on"
        assert [failure.loop for failure in world.app.stores.process_failures.everything()] == ["looks"]
    world.settle()
    assert world.sent() == [("u", "one"), ("u", "one")]
    assert world.record("c").stuck is None
    assert world.app.stores.process_failures.everything() == []


def test_a_failure_on_one_users_data_is_reported_without_the_data(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stuck_campaigns, "SUSPECT_ERRORS", 1)
    world.user("u")
    world.apply({"campaign": "c", "kind": "one_off"})
    world.launch("c")
    monkeypatch.setattr(world.app.enroller, "batch", raise_data)
    for _ in range(4):
        world.step()
    stuck = world.record("c").stuck or ""
    assert stuck.startswith("evaluating fails: ValueError at decide_slice.py")
    assert "someone" not in stuck


def test_a_campaign_that_fails_in_the_tick_blocks_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.user("u")
    start = world.app.run_planner.start
    for name in ("bad", "good"):
        world.apply({"campaign": name, "kind": "one_off"})
        world.launch(name)
    bad = world.record("bad").uid
    monkeypatch.setattr(
        world.app.run_planner,
        "start",
        lambda record, *a, **k: refuse() if record.uid == bad else start(record, *a, **k),
    )
    for _ in range(6):
        world.step()
    assert (world.state("good"), world.state("bad")) == ("finished", "scheduled")


def test_every_pause_states_its_reason(world: World) -> None:
    world.users([f"u{i}" for i in range(60)])
    world.users([f"bad{i}" for i in range(20)], age=91)
    world.start(BROKEN)
    reason = world.record("c").paused_reason or ""
    assert reason == ("the error budget: 20 of 80 deliveries failed (25.0%), the profile default allows 2.0%")
    assert reason in world.app.explainer.run(world.record("c"), "u1").now
    (failure,) = world.app.plans.report(world.record("c")).failures
    assert ("divided_by" in failure.reason, failure.count, failure.messages) == (True, 20, ("one",))
    assert failure.example.rsplit("/", 1)[1].startswith("bad")
    world.steer("resume", "c")
    assert world.record("c").paused_reason is None
    world.steer("pause", "c")
    assert "by hand" in (world.record("c").paused_reason or "")


def test_a_lost_lease_or_an_outage_does_not_make_a_campaign_stuck(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.user("u")
    world.apply({"campaign": "c", "kind": "one_off"})
    world.launch("c")

    def lose(*_: object, **__: object) -> Any:
        raise runner.LeaseLost

    with monkeypatch.context() as patch:
        patch.setattr(world.app.enroller, "batch", lose)
        for _ in range(4):
            world.step()
    assert world.record("c").stuck is None


def test_a_failing_feed_is_noted_until_it_works_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def follow(times: int) -> None:
        left = iter(range(times))
        following(world.app, "feed").run(lambda: next(left, None) is None, lambda _: None)

    with monkeypatch.context() as patch:
        patch.setattr(world.app.change_feed, "step", refuse)
        follow(5)
    (noted,) = world.app.stores.process_failures.everything()
    assert (noted.loop, noted.reason) == ("feed", f"{WHY}; make room on it")
    monkeypatch.setattr(world.app.change_feed, "step", lambda _: 0)
    follow(1)
    assert world.app.stores.process_failures.everything() == []


def test_a_stream_cursor_lost_by_a_mongodb_restart_is_an_outage_and_the_feed_continues(world: World) -> None:
    world.user("u")
    feeding = world.app.change_feed
    feeding.step(timedelta(milliseconds=20))
    stream: Any = feeding.stream
    calls = []

    def stopping() -> bool:
        if not calls:
            world.database.command("killCursors", "$cmd.aggregate", cursors=[stream.cursor])
        calls.append(1)
        return len(calls) > 5 and not world.feed()

    with listening() as events:
        following(world.app, "feed").run(stopping, lambda _: None)
    (failed,) = events.of("engine.failed")
    assert (failed.fields["process"], failed.fields["reason"]) == ("feed", "store_away")
    assert isinstance(failed.fields["error"], Away)
    assert feeding.step(timedelta(milliseconds=20)) == 0, "it follows again"


def test_a_find_cursor_lost_by_a_mongodb_restart_is_an_outage(world: World) -> None:
    world.users([f"u{number}" for number in range(9)])
    cursor = world.app.stores.database["users"].find({}, batch_size=2)
    next(cursor)
    world.database.command("killCursors", "users", cursors=[cursor.cursor_id])
    with pytest.raises(world.app.stores.OUTAGES):
        list(cursor)


def test_many_failures_of_a_loop_in_a_second_write_one_note(world: World) -> None:
    class Notes:
        def __init__(self) -> None:
            self.told: list[tuple[str, int]] = []

        def note(self, process: str, loop: str, reason: str, times: int = 1) -> None:
            self.told.append((reason, times))

        def clear(self, process: str, loop: str) -> None:
            self.told.append(("clear", 0))

    notes, clock = Notes(), Standing()
    failures = LoopFailures("feed@here", lambda: notes, clock, ())
    for _ in range(50):
        failures.failed("feed", "why")
    clock.now += WRITTEN
    failures.failed("feed", "why")
    failures.failed("feed", "another reason")
    for _ in range(3):
        failures.worked("feed")
    assert notes.told == [("why", 1), ("why", 50), ("another reason", 1), ("clear", 0)]


def test_failures_that_could_not_be_noted_are_noted_with_the_next_one() -> None:
    class AwayError(Exception):
        pass

    class Notes:
        def __init__(self) -> None:
            self.away = True
            self.times: list[int] = []

        def note(self, _process: str, _loop: str, _reason: str, times: int = 1) -> None:
            if self.away:
                raise AwayError
            self.times.append(times)

        def clear(self, _process: str, _loop: str) -> None:
            pass

    notes = Notes()
    failures = LoopFailures("feed@here", lambda: notes, Standing(), (AwayError,))
    failures.failed("feed", "why")
    notes.away = False
    failures.failed("feed", "why")
    assert notes.times == [2]


class Standing(SystemClock):
    """A clock that stands until a test moves it."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_report_and_show_explain_a_stuck_campaign_and_failed_deliveries(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.user("bad", age=91)
    world.start(BROKEN)
    uid = world.record("c").uid
    world.app.stores.campaigns.set_stuck(uid, StuckBy.SENDER, "the provider refuses the sender")
    report = world.app.plans.report(world.record("c"))
    document = report_document(report)
    (failure,) = document["failures"]
    assert ("divided_by" in failure["reason"], failure["count"]) == (True, 1)
    assert failure["example"] == {"user": "bad", "message": "one"}
    assert [(row["by"], row["reason"]) for row in document["stuck_by"]] == [
        ("sender", "the provider refuses the sender")
    ]
    show_report(report)
    shown = capsys.readouterr().out
    for part in ("the provider refuses the sender", "divided_by", "failed deliveries"):
        assert part in shown


def test_a_poisoned_user_whose_end_cannot_be_written_blocks_no_other_campaign(world: World) -> None:
    """MongoDB refuses every write of one campaign: its enrolments and the end of the poisoned user."""
    world.user("u")
    world.apply({"campaign": "c", "kind": "one_off"})
    refused = {"campaign": {"$ne": world.record("c").uid}}
    world.database.command("collMod", "enrolments", validator=refused)
    world.launch("c")
    for _ in range(20):
        world.step()
        hurry(world.database)
    world.apply({"campaign": "d", "kind": "one_off"})
    world.launch("d")
    for _ in range(20):
        world.step()
        hurry(world.database)
    assert (world.state("c"), world.state("d")) == ("live", "finished")
    assert StuckBy.TICK in world.record("c").stuck_by
    world.database.command("collMod", "enrolments", validator={})
    world.settle()
    assert (str(world.enrolment("c", "u").reason), world.state("c")) == ("failed", "finished")
