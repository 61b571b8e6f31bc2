"""Tallies: exact counts that the clock keeps fresh, final when a campaign has closed, whatever a replay does later."""

from __future__ import annotations

from collections import Counter

from engine.decisions.next_tally import SHARE, rest
from engine.domain.campaign_progress import Tally
from engine.pipeline.control.replay import replay
from engine.pipeline.insight.tallies import TallyKeeper
from tests.support.pipeline_world import World

ORDER = "Order Completed"


def tally(world: World, name: str) -> Tally | None:
    uid = world.record(name).uid
    return world.app.tallies.of([uid]).get(uid)


def keep(world: World) -> TallyKeeper:
    """Return a keeper that has not rested yet, as that of a clock whose last count is long ago."""
    world.app.__dict__.pop("tally_keeper", None)
    world.app.live_campaigns.refresh()
    return world.app.tally_keeper


def rested(world: World) -> TallyKeeper:
    """Return a keeper whose rest is over: all tallies look as old as an hour."""
    world.database["campaign_tallies"].update_many({}, {"$inc": {"at": -3_600_000}})
    return keep(world)


def test_a_tally_equals_the_report_and_the_totals_sum_all_tallies(world: World) -> None:
    world.users([f"u{n}" for n in range(30)], plan="free")
    world.start({"campaign": "two", "messages": [{"name": "one"}, {"name": "later", "wait": "9d"}]})
    world.start({"campaign": "once", "kind": "one_off", "holdout": "20%"})
    assert keep(world).step()
    assert rested(world).step()
    for name in ("two", "once"):
        report, counted = world.app.plans.report(world.record(name)), tally(world, name)
        assert counted is not None
        assert counted.counts == report.counts
        assert counted.failures == report.failures
    totals = world.app.tallies.totals()
    assert totals.campaigns == 2
    assert totals.unfit == 0
    shop = totals.workspaces["shop"]
    assert shop.deliveries["email", "sent"] == len(world.mails())
    assert shop.entered == 60
    states: Counter[str] = Counter()
    for name in ("two", "once"):
        for message in world.app.plans.report(world.record(name)).counts.messages.values():
            for state, count in message.states.items():
                states[state.partition("(")[0]] += count
    assert {outcome: n for (_, outcome), n in shop.deliveries.items()} == dict(states)


def test_a_campaign_that_has_closed_is_counted_at_once_and_never_again(world: World) -> None:
    world.users(["a", "b"], plan="free")
    world.start({"campaign": "going"})
    keeper = keep(world)
    assert keeper.step()
    assert not keeper.step(), "it rests"
    before = tally(world, "going")
    assert before is not None
    assert not before.final
    world.steer("stop", "going")
    world.settle()
    assert world.state("going") == "finished"
    assert keeper.step(), "without a rest"
    after = tally(world, "going")
    assert after is not None
    assert after.final
    assert not rested(world).step()


def test_a_tally_is_not_final_while_conversions_are_counted(world: World) -> None:
    world.users(["a", "b"], plan="free")
    world.start({"campaign": "once", "kind": "one_off", "goal": {"event": {"name": ORDER}, "within": "10d"}})
    assert world.state("once") == "finished"
    assert keep(world).step()
    assert (found := tally(world, "once")) is not None
    assert not found.final
    world.advance("2d")
    world.event("a", ORDER)
    world.settle()
    world.advance("60d")
    assert world.closed("once")
    assert keep(world).step()
    assert (found := tally(world, "once")) is not None
    assert found.final
    assert found.counts.converted == 1


def test_a_replay_leads_to_another_final_tally_although_campaign_time_stands(world: World) -> None:
    world.users(["a"], plan="free")
    world.start({"campaign": "once", "kind": "one_off"})
    keeper = keep(world)
    assert keeper.step()
    assert (found := tally(world, "once")) is not None
    assert found.final
    record = world.record("once")
    world.database["enrolments"].update_many(
        {"campaign": record.uid}, {"$set": {"settled.0.state": "failed", "settled.0.reason": "smtp_550"}}
    )
    stores = world.app.stores
    assert replay(stores.deliveries, world.app.commands, stores.wakeup, world.app.clock, record, None)
    world.settle(check=False)
    again = world.record("once")
    assert (again.state, again.endings) == ("finished", 2)
    assert again.finished_at == record.finished_at
    assert keeper.step(), "at once, although the clock rests"
    assert (found := tally(world, "once")) is not None
    assert found.final
    assert found.counts.messages["one"].states == {"sent": 1}


def test_a_cancelled_campaign_gets_a_final_tally(world: World) -> None:
    world.users(["a", "b"], plan="free")
    world.start({"campaign": "going", "messages": [{"name": "one"}, {"name": "later", "wait": "9d"}]})
    world.steer("cancel", "going")
    world.settle()
    assert keep(world).step()
    assert (found := tally(world, "going")) is not None
    assert found.final
    assert found.counts.active == 0


def test_campaigns_that_ended_before_an_upgrade_are_counted_one_by_one(world: World) -> None:
    world.users(["a"], plan="free")
    for name in ("first", "second", "third"):
        world.start({"campaign": name, "kind": "one_off"})
    world.database["campaigns"].update_many({}, {"$unset": {"endings": ""}})
    world.app.__dict__.pop("live_campaigns")
    assert [rested(world).step() for _ in range(4)] == [True, True, True, False]
    assert all((found := tally(world, name)) is not None and found.final for name in ("first", "second", "third"))


def test_counting_gives_way_to_a_closed_gate(world: World) -> None:
    world.users(["a"], plan="free")
    world.start({"campaign": "going"})
    world.app.bulk_gate.set_share(0.0, 0.01)
    assert not keep(world).step()
    world.app.bulk_gate.set_share(None, 0.01)
    assert keep(world).step()


def test_the_rest_after_a_count_outlives_the_clock(world: World) -> None:
    world.users(["a"], plan="free")
    world.start({"campaign": "one"})
    assert keep(world).step()
    world.start({"campaign": "two"})
    world.database["campaign_tallies"].update_many({}, {"$set": {"took": 100.0}})
    assert not keep(world).step(), "another clock counted for long, and rests"
    assert rest(100.0) == 100.0 / SHARE - 100.0


def test_counts_that_contradict_each_other_are_told(world: World) -> None:
    world.users(["a", "b"], plan="free")
    world.start({"campaign": "once", "kind": "one_off"})
    assert keep(world).step()
    assert world.app.tallies.totals().unfit == 0
    world.database["enrolments"].update_one({"campaign": world.record("once").uid}, {"$set": {"state": "active"}})
    world.app.tally_keeper.count(world.record("once"))
    assert world.app.tallies.totals().unfit == 1
