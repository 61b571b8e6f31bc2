"""An evaluation that an edit, a resume or a cancel requires is owed until a run has done it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from engine.domain.campaign import CampaignRecord
from engine.domain.enrolment import EnrolmentChange
from engine.domain.keys import user_key
from engine.domain.lifecycle import RunState, SliceState
from engine.domain.work import RunKind, Slice
from engine.failpoints import Failpoint, arm
from tests.support.pipeline_world import World

TWO = [{"name": "one"}, {"name": "two", "wait": "5d"}]


def series(**more: Any) -> dict[str, Any]:
    return {"campaign": "series", "messages": TWO, **more}


def expire(world: World) -> None:
    """Expire every lease: its holders count as dead."""
    past = {"$dateSubtract": {"startDate": "$$NOW", "unit": "second", "amount": 1}}
    world.database["slices"].update_many({"lease": {"$exists": True}}, [{"$set": {"lease.until": past}}])


def hold(world: World, number: int) -> None:
    """Let a worker claim `number` deciding slices and die."""
    held = list(world.database["slices"].find({"kind": {"$ne": "deliver"}, "state": "open"}).limit(number))
    for raw in held:
        assert world.app.stores.slices.claim(raw["_id"], f"dead-{raw['_id']}", world.settings.engine.lease)


@pytest.fixture
def sliced(make_world: Callable[..., World]) -> World:
    """A world whose runs are cut into slices of a few users."""
    return make_world(slice_users=5)


def test_resume_after_an_edit_and_a_killed_worker_evaluates_everybody(sliced: World) -> None:
    """A dead worker holds two slices of the edit's pass; the resume drops the others."""
    sliced.users([f"in{i}" for i in range(20)], plan="pro")
    sliced.users([f"out{i}" for i in range(20)], plan="free")
    sliced.start(series(audience={"plan": "pro"}))
    sliced.apply(series(audience={"plan": {"in": ["pro", "free"]}}))
    sliced.tick()
    sliced.work(lambda kind, ident: kind == "plan")
    assert sliced.database["slices"].count_documents({"kind": "candidates", "state": "open"}) > 2
    hold(sliced, 2)
    sliced.steer("pause", "series")
    sliced.settle()
    sliced.steer("resume", "series")
    assert sliced.app.quiescence.what() == "campaign series has users to re-evaluate"
    sliced.tick()
    expire(sliced)
    sliced.settle()
    enrolments = sliced.enrolments("series")
    assert len(enrolments) == 40
    assert {enrolment.revision for enrolment in enrolments} == {2}
    states = {run["_id"].split("/", 2)[2]: run["state"] for run in sliced.runs("series")}
    assert states["pass/evaluation/000001"] == states["stays/evaluation/000001"] == "dropped"
    assert states["resume/evaluation/000002"] == "decided"


def test_a_run_with_dropped_slices_is_not_decided_and_marks_nothing_as_done(sliced: World) -> None:
    sliced.users([f"u{i}" for i in range(20)])
    sliced.start(series())
    sliced.apply(series(holdout="1%"))
    sliced.tick()
    sliced.work(lambda kind, ident: kind == "plan")
    hold(sliced, 1)
    (held,) = sliced.database["slices"].find({"lease": {"$exists": True}})
    for raw in sliced.runs("series"):
        if raw["state"] == "running":
            sliced.app.stores.slices.drop_unclaimed(raw["_id"])
    sliced.app.stores.slices.close(held["_id"], held["lease"]["token"], SliceState.DONE, {})
    for raw in sliced.runs("series"):
        sliced.app.run_completion.run(raw["_id"])
    assert {run["state"] for run in sliced.runs("series") if "evaluation" in run["_id"]} == {"dropped"}
    assert sliced.record("series").enrolled_done == 0


def test_stopping_a_paused_campaign_evaluates_those_inside_as_a_resume_does(world: World) -> None:
    world.users(["leaves", "stays"], plan="pro")
    world.start(series(audience={"plan": "pro"}))
    world.steer("pause", "series")
    world.change("leaves", plan="free")
    world.settle()
    world.steer("stop", "series")
    world.settle()
    assert str(world.enrolment("series", "leaves").reason) == "unmatched"
    assert world.enrolment("series", "stays").active


def test_a_change_or_an_edit_during_a_paused_launch_is_evaluated(sliced: World) -> None:
    """The launch run keeps its slices and does not evaluate users it reached before the pause."""
    sliced.users([f"u{i}" for i in range(20)], plan="pro")
    sliced.apply(series(audience={"plan": "pro"}))
    sliced.launch("series")
    sliced.tick()
    sliced.work(lambda kind, ident: kind == "plan" or (kind == "process" and ident.endswith("/0000")))
    sliced.step()
    first = sliced.enrolments("series")
    assert sliced.database["runs"].count_documents({"kind": "launch", "state": "running"}) == 1 or len(first) == 20
    sliced.steer("pause", "series")
    changed = first[0].user.rsplit("/", 1)[1]
    sliced.change(changed, plan="free")
    sliced.apply(series(audience={"plan": "pro"}, holdout="1%"))
    sliced.settle()
    sliced.steer("resume", "series")
    sliced.settle()
    assert str(sliced.enrolment("series", changed).reason) == "unmatched"
    assert {enrolment.revision for enrolment in sliced.enrolments("series")} == {2}


def test_a_delivery_replayed_while_its_campaign_finishes_is_sent(world: World) -> None:
    """The replay queued the delivery in a live campaign, so it reopened nothing; then the campaign finished."""
    world.user("u", age=0)
    message = {"name": "one", "body": "{{ 10 | divided_by: user.age }}"}
    world.start({"campaign": "hello", "kind": "one_off", "messages": [message]})
    world.change("u", age=1)
    record = world.record("hello")
    assert record.state == "finished"
    assert world.app.stores.deliveries.replay_failed(f"shop/{record.uid}/", None, world.now) == 1
    assert world.app.quiescence.what() == "a delivery is pending"
    world.settle()
    assert world.ends("hello", "u") == [("one", "sent", None)]
    assert world.state("hello") == "finished"


def test_a_campaign_edited_while_it_finishes_does_not_finish(world: World) -> None:
    world.user("u")
    world.start(series())
    world.steer("stop", "series")
    world.after("5d")
    record = world.record("series")
    world.database["campaigns"].update_one({"_id": record.uid}, {"$set": {"state": "draining"}})
    before = world.record("series")
    world.apply(series(holdout="1%"))
    assert not world.app.run_completion.campaign(before)
    assert not world.app.run_completion.campaign(world.record("series"))
    world.settle()
    assert world.state("series") == "finished"


def test_an_edit_concurrent_with_a_pause_is_evaluated_after_the_resume(world: World) -> None:
    """The campaign is paused between the edit's read and its write."""
    world.user("u", plan="free")
    world.start(series(audience={"plan": "free"}))
    named = world.app.stores.campaigns.named

    def paused_after(name: str, workspace: str | None = None) -> list[CampaignRecord]:
        stored = named(name, workspace)
        world.app.stores.campaigns.named = named  # type: ignore[method-assign]
        world.steer("pause", "series")
        return stored

    world.app.stores.campaigns.named = paused_after  # type: ignore[method-assign]
    world.apply(series(audience={"plan": "pro"}))
    world.settle()
    assert world.enrolment("series", "u").active
    world.steer("resume", "series")
    world.settle()
    assert str(world.enrolment("series", "u").reason) == "unmatched"


def test_a_launch_run_written_before_an_edit_finds_the_edited_audience(world: World) -> None:
    """The clock died between creating the launch run and changing the campaign's state."""
    world.user("u", plan="pro")
    world.apply(series(audience={"none": [{"all": []}]}))
    world.launch("series")
    run = world.app.run_planner.start(world.record("series"), RunKind.LAUNCH, world.now)
    world.app.run_planner.run(run.id)
    world.apply(series(audience={"plan": "pro"}))
    world.settle()
    assert world.sent() == [("u", "one")]


def test_a_planner_killed_after_some_slices_leaves_no_gap(sliced: World) -> None:
    """The second plan sees a workspace of another size."""
    sliced.users([f"u{i}" for i in range(20)])
    sliced.start(series())
    sliced.apply(series(audience={"plan": "pro"}))
    sliced.tick()
    (run,) = [run for run in sliced.app.stores.runs.undecided() if run.kind is RunKind.STAYS]
    add = sliced.app.stores.slices.add
    sliced.app.stores.slices.add = lambda pieces: add(pieces[: len(pieces) // 2])  # type: ignore[method-assign]
    arm("plan.sliced=raise")
    try:
        with pytest.raises(Failpoint):
            sliced.app.run_planner.run(run.id)
    finally:
        arm("")
        sliced.app.stores.slices.add = add  # type: ignore[method-assign]
    sliced.app.run_planner.pieces = lambda record: 2  # type: ignore[method-assign]
    sliced.settle()
    assert {str(enrolment.reason) for enrolment in sliced.enrolments("series")} == {"unmatched"}


def test_a_run_dropped_while_its_slices_are_cut_leaves_no_slices(sliced: World) -> None:
    sliced.users([f"u{i}" for i in range(20)])
    sliced.start(series())
    sliced.apply(series(holdout="1%"))
    sliced.tick()
    (run,) = [run for run in sliced.app.stores.runs.undecided() if run.kind is RunKind.STAYS]
    add = sliced.app.stores.slices.add

    def dropped_first(pieces: Sequence[Slice]) -> None:
        sliced.app.stores.runs.move(run, RunState.DROPPED)
        add(pieces)

    sliced.app.stores.slices.add = dropped_first  # type: ignore[method-assign]
    sliced.app.run_planner.run(run.id)
    assert not sliced.app.stores.slices.has_open(run.id)


def test_list_slices_continue_when_the_edited_audience_has_no_list(sliced: World) -> None:
    """Slices cut for a list continue when the edited audience has no list."""
    sliced.users([f"u{i}" for i in range(6)], plan="pro")
    sliced.apply(series())
    sliced.launch("series")
    sliced.tick()
    sliced.database["runs"].update_many({}, {"$unset": {"path": ""}})
    sliced.work(lambda kind, ident: kind == "plan")
    sliced.database["slices"].update_many({"kind": "candidates"}, {"$set": {"path": "list"}})
    sliced.settle()
    assert len(sliced.enrolments("series")) == 6


def test_the_writer_that_loses_a_race_requests_another_evaluation(world: World) -> None:
    """Another process, which read the user before a change, writes first: the change is not lost."""
    world.user("u", plan="pro")
    world.start(series(audience={"plan": "pro"}))
    world.change("u", plan="free")
    advance = world.app.stores.enrolments.advance

    def overtaken(changes: Sequence[EnrolmentChange]) -> int:
        world.app.stores.enrolments.advance = advance  # type: ignore[method-assign]
        (change,) = changes
        assert advance([replace(change, exit=None, due_at=None)]) == 1
        return advance(changes)

    world.app.stores.enrolments.advance = overtaken  # type: ignore[method-assign]
    world.settle()
    assert str(world.enrolment("series", "u").reason) == "unmatched"


def test_a_user_who_enters_under_an_old_revision_is_evaluated_under_the_new_one(sliced: World) -> None:
    """The edit's runs are over before the launch run's worker, which read the old revision, writes."""
    later = [{"name": "one", "wait": "5d"}]
    sliced.users([f"u{i}" for i in range(4)], plan="pro")
    sliced.apply(series(audience={"plan": "pro"}, messages=later))
    sliced.launch("series")
    enter = sliced.app.stores.enrolments.enter_alike

    def edited_first(*enrolments: object) -> set[str]:
        sliced.app.stores.enrolments.enter_alike = enter  # type: ignore[method-assign]
        sliced.apply(series(audience={"plan": "free"}, messages=later))
        other = sliced.open()
        try:
            other.live_campaigns.refresh()
            (evaluation_run,) = other.owed_evaluations.run(other.stores.runs.undecided(), sliced.now)
            other.run_planner.run(evaluation_run.id)
            for slice_ in other.stores.slices.of_run(evaluation_run.id):
                other.slice_decider.run(slice_.id)
            assert other.run_completion.run(evaluation_run.id)
        finally:
            other.close()
        return enter(*enrolments)  # type: ignore[arg-type]

    sliced.app.stores.enrolments.enter_alike = edited_first  # type: ignore[method-assign,assignment]
    sliced.settle()
    assert {str(enrolment.reason) for enrolment in sliced.enrolments("series")} == {"unmatched"}


@pytest.mark.parametrize("alike", [True, False], ids=["together", "one by one"])
@pytest.mark.parametrize("gone", [False, True], ids=["changed", "deleted"])
def test_a_user_who_changes_between_a_slices_read_and_write_is_evaluated_again(
    world: World, *, alike: bool, gone: bool
) -> None:
    """The evaluation of the change finds no enrolment, and is over before the slice enrols the user."""
    rule = {} if alike else {"exit": {"when": {"plan": "banned"}}}
    world.user("u", plan="pro")
    world.apply(series(audience={"plan": "pro"}, messages=[{"name": "one", "wait": "5d"}], **rule))
    world.launch("series")
    enrolments = world.app.stores.enrolments
    name = "enter_alike" if alike else "enter"
    enter = getattr(enrolments, name)

    def changed_first(*told: object) -> set[str]:
        setattr(enrolments, name, enter)
        if gone:
            world.app.imports("shop").tombstones.delete(user_key("shop", "u"))
        else:
            world.change("u", plan="free")
        world.feed()
        world.app.rechecker.run()
        assert not world.enrolments("series")
        return enter(*told)  # type: ignore[no-any-return]

    setattr(enrolments, name, changed_first)
    world.settle()
    assert str(world.enrolment("series", "u").reason) == ("deleted" if gone else "unmatched")
