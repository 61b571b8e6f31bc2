"""The poison rule finds a user whose data kills workers, and ends only that user's enrolment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest

from engine.decisions.poison import DEATHS_TO_BURY, DEATHS_TO_HALVE, ERRORS_TO_SUSPECT
from engine.domain.enrolment import Enrolment
from engine.domain.keys import suffix_of_user, user_key
from engine.failpoints import arm
from engine.pipeline.control.replay import replay
from engine.stores.mongo.enrolments import Enrolments
from tests.chaos.conftest import Drive
from tests.chaos.play import NAME, Performer, Step, let_time_pass
from tests.support.pipeline_world import World

STEPS: Final[tuple[Step, ...]] = (("launch",), ("settle",))
USERS: Final = tuple(f"u{number}" for number in range(12))
POISON: Final = "u3"
ORDINARY: Final = ("control", "looks", "index", "fast", "slow", "deliver")
DECIDING: Final = f"slice.decided=%s@*~/{POISON}/"
SENDING: Final = f"deliver.marked=%s@*~/{POISON}/"


def staged(make_stage: Callable[..., World], **more: Any) -> World:
    """A world with twelve users in one slice and a one-off campaign of one message, not launched."""
    world = make_stage(slice_users=100, **more)
    world.users(USERS)
    world.apply({"campaign": NAME, "kind": "one_off"})
    return world


def slices(world: World) -> list[dict[str, Any]]:
    """Return every slice, by id."""
    return list(world.database["slices"].find().sort("_id", 1))


def the_whole(world: World) -> dict[str, Any]:
    """Return the one slice of the launch run."""
    return next(
        slice_ for slice_ in slices(world) if slice_["kind"] == "candidates" and slice_["_id"].endswith("/0000")
    )


def check_that_one_failed(world: World, *, settled: list[tuple[str, str, str | None]]) -> None:
    """Check that the poisoned user's enrolment failed with `settled`, and that every other user has the mail."""
    world.check()
    assert [user for user in USERS if world.enrolment(NAME, user).reason == "failed"] == [POISON]
    assert (world.enrolment(NAME, POISON).detail, world.ends(NAME, POISON)) == ("poison", settled)
    assert [user for user, _ in world.sent()] == sorted(set(USERS) - {POISON})
    assert world.state(NAME) == "finished"
    assert {slice_["state"] for slice_ in slices(world)} <= {"done", "split", "dead"}


@pytest.mark.parametrize(
    ("point", "settled"), [(DECIDING, []), (SENDING, [("one", "unknown", "poison")])], ids=["deciding", "sending"]
)
def test_a_user_who_kills_every_worker_ends_alone(
    point: str, settled: list[tuple[str, str, str | None]], make_stage: Callable[..., World], drive: Drive
) -> None:
    """Every process dies by SIGKILL as soon as it handles that user's data."""
    world = staged(make_stage)
    ends = []
    while "exit 0" not in ends and len(ends) < 40:
        ends.append(drive.perform(world.settings, STEPS, point % "kill")[1])
        let_time_pass(world.database)
    levels = 4  # halving twelve users to one takes four steps
    assert set(ends) == {"signal 9", "exit 0"}
    assert len(ends) - 1 <= 1 + DEATHS_TO_HALVE * levels + DEATHS_TO_BURY
    check_that_one_failed(world, settled=settled)


@pytest.mark.parametrize(
    ("point", "settled"), [(DECIDING, []), (SENDING, [("one", "failed", "poison")])], ids=["deciding", "sending"]
)
def test_a_user_whose_data_raises_ends_alone(
    point: str,
    settled: list[tuple[str, str, str | None]],
    make_stage: Callable[..., World],
    recover: Callable[..., Performer],
) -> None:
    world = staged(make_stage)
    performer = recover(world, STEPS, point % "raise")
    check_that_one_failed(world, settled=settled)
    suspects = {lane for what, _, lane in performer.done if what in ("process", "deliver")}
    assert suspects == {"fast", "deliver", "suspect"}


def test_a_poisoned_enrolled_user_keeps_the_settled_deliveries(
    make_stage: Callable[..., World], recover: Callable[..., Performer]
) -> None:
    """The second evaluation of an enrolment fails: its first mail stays sent, and nothing follows."""
    world = make_stage(slice_users=100)
    world.users(USERS)
    world.apply({"campaign": NAME, "kind": "one_off", "messages": [{"name": "one"}, {"name": "two", "wait": "2d"}]})
    recover(world, STEPS)
    later: tuple[Step, ...] = (("advance", world.now + 2 * 86_400_000), ("settle",))
    recover(world, later, DECIDING % "raise")
    world.check()
    enrolment = world.enrolment(NAME, POISON)
    assert (enrolment.reason, enrolment.detail, world.ends(NAME, POISON)) == (
        "failed",
        "poison",
        [("one", "sent", None)],
    )
    others = {user for user in USERS if world.ends(NAME, user) == [("one", "sent", None), ("two", "sent", None)]}
    assert others == set(USERS) - {POISON}


def test_a_poisoned_replayed_delivery_of_an_ended_enrolment_is_settled(
    make_stage: Callable[..., World], recover: Callable[..., Performer]
) -> None:
    world = make_stage(slice_users=100, errors={"budget": "50%", "then": "report"})
    world.users(USERS)
    world.change(POISON, age=0)
    message = {"name": "one", "body": "{% if user.age == 0 %}{{ 10 | divided_by: user.age }}{% endif %}Hello"}
    world.apply({"campaign": NAME, "kind": "one_off", "messages": [message]})
    recover(world, STEPS)
    reason = "template: one.body:1: divided_by: can't divide by 0"
    assert world.ends(NAME, POISON) == [("one", "failed", reason)]
    world.change(POISON, age=1)
    app = world.app
    assert replay(app.stores.deliveries, app.commands, app.stores.wakeup, app.clock, world.record(NAME), None) == 1
    recover(world, (("settle",),), SENDING % "raise")
    world.check()
    assert world.ends(NAME, POISON) == [("one", "failed", "poison")]
    assert world.enrolment(NAME, POISON).reason == "completed"
    assert world.state(NAME) == "finished"


def test_only_the_third_error_makes_a_slice_a_suspect(make_stage: Callable[..., World]) -> None:
    world = staged(make_stage)
    arm(DECIDING % "raise")
    performer = Performer(world.app, world.database, world.asked)
    seen: list[tuple[int, bool, str]] = []
    world.launch(NAME)
    for _ in range(60):
        performer.round()
        whole = the_whole(world)
        lane = next((lane for what, ident, lane in reversed(performer.done) if ident == whole["_id"]), "")
        if (whole["errors"], whole["suspect"], lane) not in seen:
            seen.append((whole["errors"], whole["suspect"], lane))
        if whole["state"] == "split":
            break
        let_time_pass(world.database)
    errors = [(count, suspect) for count, suspect, _ in seen if count]
    assert errors[:ERRORS_TO_SUSPECT] == [(1, False), (2, False), (3, True)]
    assert all(
        lane == ("suspect" if suspect and count > ERRORS_TO_SUSPECT else "fast")
        for count, suspect, lane in seen
        if count
    )


def test_a_death_before_the_first_checkpoint_makes_a_suspect_and_one_after_it_does_not(
    make_stage: Callable[..., World], drive: Drive
) -> None:
    world = staged(make_stage)
    assert drive.perform(world.settings, STEPS, "slice.checkpointed=kill")[1] == "signal 9"
    let_time_pass(world.database)
    world.tick()
    whole = the_whole(world)
    assert (whole["suspect"], whole["deaths"]) == (False, 0)
    assert ("process", whole["_id"], "fast") in world.asked
    world.asked.clear()
    let_time_pass(world.database)
    assert drive.perform(world.settings, STEPS, "slice.decided=kill")[1] == "signal 9"
    let_time_pass(world.database)
    world.tick()
    whole = the_whole(world)
    assert (whole["suspect"], whole["deaths"]) == (True, 0)
    assert ("process", whole["_id"], "suspect") in world.asked


def test_only_suspects_travel_in_their_lane(
    make_stage: Callable[..., World], recover: Callable[..., Performer]
) -> None:
    world = make_stage()  # two slices, one of which holds the poisoned user
    world.users(USERS)
    world.apply({"campaign": NAME, "kind": "one_off"})
    performer = recover(world, STEPS, DECIDING % "raise")
    poisoned = suffix_of_user(user_key("shop", POISON))
    was_suspect = {slice_["_id"] for slice_ in slices(world) if slice_["suspect"]}
    assert {ident for _, ident, lane in performer.done if lane == "suspect"} <= was_suspect
    innocent = [
        slice_
        for slice_ in slices(world)
        if not slice_["first"] <= poisoned < slice_["until"] and not slice_["suspect"]
    ]
    assert innocent
    assert all(user["state"] == "done" and user["deaths"] == user["errors"] == 0 for user in innocent)


def test_halves_have_deterministic_ids_and_cover_the_rest_of_their_slice(
    make_stage: Callable[..., World], drive: Drive, recover: Callable[..., Performer]
) -> None:
    """A kill between writing the halves and closing the whole: halving again makes the same two slices."""
    world = staged(make_stage)
    points = f"{DECIDING % 'raise'},poison.halved=kill"
    assert drive.perform(world.settings, STEPS, points)[1] == "signal 9"
    halves = {
        slice_["_id"]: (slice_["first"], slice_["until"], slice_["state"])
        for slice_ in slices(world)
        if slice_["_id"][-1] in "ab"
    }
    whole = next(slice_ for slice_ in slices(world) if slice_["_id"][-1] not in "ab" and slice_["_id"] + "a" in halves)
    assert whole["state"] == "open"
    recover(world, STEPS, DECIDING % "raise")
    after = {slice_["_id"]: slice_ for slice_ in slices(world)}
    for ident, (first, until, _) in halves.items():
        assert (after[ident]["first"], after[ident]["until"]) == (first, until)
    for half in after.values():
        if half["state"] == "split":
            lower, upper = after[half["_id"] + "a"], after[half["_id"] + "b"]
            assert (lower["first"], upper["until"]) == (half["first"], half["until"])
            assert lower["until"] == upper["first"]
            assert (lower["run"], upper["run"]) == (half["run"], half["run"])
    check_that_one_failed(world, settled=[])


def test_a_storm_that_kills_every_ordinary_worker_ends_no_enrolment(
    make_stage: Callable[..., World], drive: Drive, recover: Callable[..., Performer]
) -> None:
    """Every deciding worker dies, except in the suspects' lane: deaths of innocent slices are not counted."""
    world = make_stage(slice_users=3)
    world.users(USERS)
    world.apply({"campaign": NAME, "kind": "one_off"})
    ends = []
    for _ in range(8):
        ends.append(drive.perform(world.settings, (("launch",), ("rounds", 6)), "slice.decided=kill@1", ORDINARY)[1])
        let_time_pass(world.database)
    assert ends.count("signal 9") >= len(slices(world)) > 2
    assert all(slice_["suspect"] and slice_["deaths"] == 0 and slice_["state"] == "open" for slice_ in slices(world))
    recover(world, STEPS)
    world.check()
    assert [user for user, _ in world.sent()] == sorted(USERS)
    assert {enrolment.reason for enrolment in world.enrolments(NAME)} == {"completed"}


@pytest.mark.parametrize("point", ["slice.checkpointed", "slice.closed", "deliver.sent"])
def test_a_storm_in_which_every_worker_lives_for_one_batch_ends_no_enrolment(
    point: str, make_stage: Callable[..., World], drive: Drive
) -> None:
    """A worker that finishes a batch before it dies proves that its slice is innocent, suspect or not."""
    world = staged(make_stage, batch={"candidates": [2]})
    ends = []
    while "exit 0" not in ends and len(ends) < 40:
        ends.append(drive.perform(world.settings, STEPS, f"{point}=kill@1")[1])
        let_time_pass(world.database)
    assert len(ends) > 2
    assert ends[-1] == "exit 0"
    world.check()
    assert [user for user, _ in world.sent()] == sorted(USERS)
    assert {enrolment.reason for enrolment in world.enrolments(NAME)} == {"completed"}


class Interrupted(Enrolments):
    """An enrolment store in which another writer changes an enrolment once, just after it was read."""

    left = 1

    def latest_of(self, campaign: str, users: Sequence[str]) -> dict[str, Enrolment]:
        latest = super().latest_of(campaign, users)
        if self.left and latest:
            self.left -= 1
            self._all.update_many({"user": {"$in": list(users)}}, {"$inc": {"version": 1}})
        return latest


def test_a_burial_is_retried_after_a_concurrent_write_to_the_enrolment(make_stage: Callable[..., World]) -> None:
    """A slice is not dead before the end of its user's enrolment is written."""
    world = staged(make_stage)
    interrupted = Interrupted(world.database)
    world.app.stores.__dict__["enrolments"] = interrupted
    arm(SENDING % "raise")
    Performer(world.app, world.database, world.asked).perform(STEPS)
    assert interrupted.left == 0
    check_that_one_failed(world, settled=[("one", "failed", "poison")])
