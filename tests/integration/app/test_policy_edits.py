"""Each key of the policies is in force as soon as an edited file is read: no process starts again, no object is built.

`World.reload` does what each process's watcher does every second. The keys of fleets are tested on running workers
(`tests/integration/actors/broker/test_broker_policies.py`), and files and processes in `test_run_policies.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from actors.messenger import time_limit
from actors.setup import ACTORS
from engine.domain.counts import Ends
from engine.domain.lifecycle import CampaignState
from engine.pipeline.delivery.send_rate import SendRateKeeper
from engine.telemetry.events import listening
from tests.support.pipeline_world import POLICIES, World

USERS = [f"u{number}" for number in range(8)]


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """Each slice has one user, and as many as the lane has room for run at once."""
    world = make_world(slice_users=1, in_flight=100, batch={"candidates": [5]})
    world.users(USERS)
    return world


def edit(world: World, **keys: object) -> None:
    world.profile(**{"slice_users": 1, "in_flight": 100, "batch": {"candidates": [5]}, **keys})
    world.reload()


def lanes(world: World, **keys: object) -> None:
    world.policies({**POLICIES, **keys})


def launch(world: World, name: str = "c", **keys: object) -> None:
    """Launch a campaign and plan its run; nothing is dispatched yet."""
    world.apply({"campaign": name, **keys})
    world.launch(name)
    world.app.clock_tick.run()
    world.work(lambda kind, _: kind == "plan")


def dispatched(world: World, kind: str = "process") -> Counter[str]:
    """Make a tick; return how many slices it enqueued in each lane."""
    world.asked.clear()
    world.tick()
    return Counter(lane for asked, _, lane in world.asked if asked == kind)


def test_lane(world: World) -> None:
    launch(world)
    edit(world, lane="slow")
    assert dispatched(world) == {"slow": 8}


def test_slow_lane(world: World) -> None:
    launch(world)
    record = world.record("c")
    world.database["campaigns"].update_one({"_id": record.uid}, {"$set": {"slowed": True}, "$inc": {"generation": 1}})
    facts = world.app.campaign_cache.profile(record)
    edit(world, slow_lane="fast")
    assert (facts.slow_lane, world.app.campaign_cache.profile(record).slow_lane) == ("slow", "fast")


def test_deliver_lane(world: World) -> None:
    post = {**POLICIES["lanes"], "post": {"kind": "deliver"}}
    served = {**POLICIES["fleets"], "post": {"lanes": ["post"]}}
    launch(world)
    world.choose()
    lanes(world, lanes=post, fleets=served)
    edit(world, deliver_lane="post")
    world.tick()
    assert {lane for kind, _, lane in world.asked if kind == "deliver"} | set(dispatched(world, "deliver")) == {"post"}


def test_depth_and_threads_make_room(world: World) -> None:
    lanes(world, lanes={**POLICIES["lanes"], "fast": {"depth": 1}})
    launch(world)
    assert dispatched(world) == {"fast": 4}, "one a thread"
    fleet: Mapping[str, Any] = POLICIES["fleets"]["all"]
    lanes(
        world,
        lanes={**POLICIES["lanes"], "fast": {"depth": 1}},
        fleets={**POLICIES["fleets"], "all": {**fleet, "threads": 6}},
    )
    assert dispatched(world) == {"fast": 2}
    lanes(world, lanes={**POLICIES["lanes"], "fast": {"depth": 2}})
    assert dispatched(world) == {"fast": 2}


def test_in_flight(world: World) -> None:
    edit(world, in_flight=2)
    launch(world)
    assert dispatched(world) == {"fast": 2}
    edit(world, in_flight=5)
    assert dispatched(world) == {"fast": 3}


def test_time_limit(world: World) -> None:
    assert ACTORS, "importing them registers their own limits"
    assert time_limit(world.app, "process_slice", "fast") == 60_000
    assert time_limit(world.app, "plan_run", "control") == 60_000
    limits = {"fast": {"time_limit": "90s"}, "control": {"time_limit": "5m"}, "index": {"time_limit": "5s"}}
    lanes(world, lanes={**POLICIES["lanes"], **limits})
    assert time_limit(world.app, "process_slice", "fast") == 90_000
    assert time_limit(world.app, "plan_run", "control") == 300_000
    assert time_limit(world.app, "warm_cache", "index") == 600_000, "the engine's own messages keep their longer ones"
    assert time_limit(world.app, "process_slice", "gone") is None


def test_slice_users(world: World) -> None:
    edit(world, slice_users=4)
    launch(world)
    assert dispatched(world) == {"fast": 2}


def test_batch(world: World) -> None:
    edit(world, slice_users=100)
    launch(world)
    edit(world, slice_users=100, batch={"candidates": [2]})
    dispatched(world)
    with listening() as emitted:
        world.work(lambda kind, _: kind == "process")
    assert [line.fields["users"] for line in emitted.of("batch.decided") if "users" in line.fields] == [2, 2, 2, 2]


def test_urgency_and_weights(world: World) -> None:
    """One place in the lane, two campaigns: the urgent one gets it."""
    world.profile("urgent", slice_users=1, urgency="low")
    lanes(world, lanes={**POLICIES["lanes"], "fast": {"depth": 1}})
    launch(world, "a")
    launch(world, "b", profile="urgent")
    world.profile("urgent", slice_users=1, urgency="high")
    world.reload()
    world.asked.clear()
    world.tick()
    urgent = {slice_["_id"] for slice_ in world.database["slices"].find({"campaign": world.record("b").uid})}
    assert {ident for kind, ident, _ in world.asked if kind == "process"} <= urgent
    lanes(world, workspaces={"shop": {"weight": 7}})
    assert world.app.campaign_cache.policies.weight_of("shop") == 7


def test_inactivity(world: World) -> None:
    world.apply({"campaign": "c", "messages": [{"name": "one", "wait": "5d"}]})
    world.launch("c")
    world.settle()
    world.after("2d")
    assert {enrolment.active for enrolment in world.enrolments("c")} == {True}
    edit(world, inactivity="1d")
    world.after("1h")
    assert {(enrolment.active, str(enrolment.reason)) for enrolment in world.enrolments("c")} == {(False, "inactive")}


def test_pass(world: World) -> None:
    """A user whom time alone lets in enters at the next pass, which the edit brings forward."""
    world.app.clock_tick.time = lambda: (world.now, False)  # no command has set it: then it would bring a pass at once
    edit(world, **{"pass": "10d", "reconcile": "20d"})
    world.user("late", vip_until=world.now)
    world.apply({"campaign": "c", "audience": {"vip_until": {"older_than": "1d"}}})
    world.launch("c")
    world.settle()
    world.advance("2d")
    assert [world.step() for _ in range(3)][-1] == 0
    assert world.enrolments("c") == []
    edit(world, **{"pass": "1m", "reconcile": "20d"})
    for _ in range(4):
        world.step()
    assert len(world.enrolments("c")) == 1


def test_reconcile(world: World) -> None:
    edit(world, **{"pass": "1m", "reconcile": "20d"})
    launch(world)
    world.settle()
    world.after("1h")
    assert {run["kind"] for run in world.runs("c")}.isdisjoint({"reconcile"})
    edit(world, **{"pass": "1m", "reconcile": "10m"})
    world.after("1m")
    assert "reconcile" in {run["kind"] for run in world.runs("c")}


def test_error_budget(world: World) -> None:
    """The same failures only report a campaign under one profile, and pause it under the next."""
    edit(world, errors={"budget": "2%", "then": "report"})
    launch(world)
    most = Ends(ended=100, failed=90)
    assert not world.app.campaign_health.burst(world.record("c"), most)
    edit(world, errors={"budget": "2%", "then": "pause"})
    assert world.app.campaign_health.burst(world.record("c"), most)
    assert world.record("c").state is CampaignState.PAUSED


def test_window_and_delivery(world: World) -> None:
    """A window marks as many messages as the profile in force says."""
    edit(world, slice_users=100)
    launch(world)
    dispatched(world)
    world.work(lambda kind, _: kind != "deliver")
    edit(world, slice_users=100, channels={"email": {"window": 3}}, delivery="at_most_once")
    with listening() as emitted:
        world.settle()
    assert [line.fields["sent"] for line in emitted.of("batch.delivered")] == [8]
    profile = world.app.campaign_cache.profile(world.record("c"))
    assert (profile.window_of("email"), profile.guarantee("email").value) == (3, "at_most_once")
    assert len(world.mails()) == 8


def test_slow_when(world: World) -> None:
    launch(world)
    record = world.record("c")

    def measured() -> None:
        profile = world.app.campaign_cache.profile(record)
        world.app.campaign_health.batch(record, profile, 1, timedelta(seconds=1), "users.scan")

    measured()
    assert not world.record("c").slowed
    edit(world, slow_when={"per_user_p95": "1ms", "batches": 1})
    measured()
    assert world.record("c").slowed
    assert dispatched(world) == {"slow": 8}


def test_rates(world: World) -> None:
    keeper = SendRateKeeper(world.app.stores.send_rates, lambda: world.app.policies, world.app.clock)
    assert keeper.limit("email") is None
    lanes(world, rates={"email": {"per_second": 250}})
    assert keeper.limit("email") == 250
    lanes(world)
    assert keeper.permit("email", 1, "deliver", lambda: True)


def test_a_campaign_moved_ten_times_sends_each_mail_once(world: World) -> None:
    launch(world)
    for turn in range(10):
        edit(world, lane=("slow", "fast")[turn % 2])
        world.tick()
        for _ in range(3):
            if world.asked:
                kind, ident, _lane = world.asked.popleft()
                world.do(kind, ident)
    world.settle()
    assert world.sent() == [(user, "one") for user in USERS]
    assert world.record("c").state is CampaignState.LIVE


@pytest.mark.parametrize("files", ["policies", "workspaces"])
def test_a_set_that_came_into_force_while_mongodb_was_away_is_recorded_later(
    world: World, monkeypatch: pytest.MonkeyPatch, files: str
) -> None:
    assert world.app.policies.version, "in force before the edit"
    store = world.app.stores.policy_versions if files == "policies" else world.app.stores.workspace_versions

    def away(*_: object) -> None:
        raise AutoReconnect

    with monkeypatch.context() as outage, suppress(AutoReconnect):
        outage.setattr(store, "record", away)
        if files == "policies":
            world.profile(lane="slow")
            world.app.watcher.look()
        else:
            world.workspace(attributes={"tier": "string"})
            world.app.workspace_watcher.look()
    before = world.database[files].count_documents({})
    world.app.record_files()
    assert world.database[files].count_documents({}) == before + 1
    world.app.record_files()
    assert world.database[files].count_documents({}) == before + 1
