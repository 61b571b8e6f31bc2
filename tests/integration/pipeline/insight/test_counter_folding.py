"""Counters that only rise: each slice and each stretch counts once, whoever dies and whatever is deleted."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from engine.clock import SystemClock
from engine.decisions.batch_size import Tuner
from engine.domain.document import Document
from engine.domain.metric_totals import CampaignCost, QueryTotal
from engine.pipeline.insight.counter_folding import SETTLED, CounterFolding, QueryCounters
from engine.pipeline.insight.statistics_recorder import StatisticsRecorder
from engine.query_metrics import Measurements
from engine.stores.migrations import migrate_mongo
from engine.stores.mongo.campaign_tallies import Tallies
from engine.stores.mongo.metric_totals import MARGIN, MetricTotals
from engine.stores.mongo.query_statistics import Statistics
from engine.stores.mongo.slices import Slices
from tests.support.decision_cases import NOW
from tests.support.pipeline_world import World


class HandClock(SystemClock):
    """Both times, moved by a test."""

    def __init__(self) -> None:
        self.now = NOW

    def system_now(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1e3


class Installation:
    """Processes that measure, a clock that folds, and a reader, on one database."""

    def __init__(self, database: Database[Document]) -> None:
        migrate_mongo(database)
        self.database = database
        self.clock = HandClock()
        self.totals = MetricTotals(database)
        self.stretches = Statistics(database)
        self.folding = self.new_clock()
        self.reader = QueryCounters(self.totals, self.stretches)
        self.folding.fold_queries()

    def new_clock(self) -> CounterFolding:
        return CounterFolding(
            totals=self.totals,
            slices=Slices(self.database),
            tallies=Tallies(self.database),
            stretches=self.stretches,
            clock=self.clock,
        )

    def process(self) -> tuple[Measurements, StatisticsRecorder]:
        measurements = Measurements()
        recorder = StatisticsRecorder(lambda: self.stretches, Tuner(), self.clock, (), measurements)
        return measurements, recorder

    def read(self) -> Mapping[str, QueryTotal]:
        read = self.reader.read()
        assert read is not None
        return read

    def later(self, seconds: float) -> None:
        self.clock.now += round(seconds * 1e3)

    def folded_for(self, seconds: float, folding: CounterFolding | None = None) -> int:
        """Let a clock look every minute for some time; return how many stretches it folded."""
        folded = 0
        while seconds > 0:
            self.later(min(60, seconds))
            seconds -= 60
            folded += (folding or self.folding).fold_queries()
        return folded


@pytest.fixture
def installation(database: Database[Document]) -> Installation:
    return Installation(database)


def test_a_stretch_counts_before_it_is_folded_and_after_it_is_deleted(installation: Installation) -> None:
    measurements, recorder = installation.process()
    for seconds in (0.0002, 0.004, 0.004, 40.0):
        measurements.record("users.get", seconds, 2, failed=seconds > 1)
    recorder.write()
    before = installation.read()["users.get"]
    assert (before.calls, before.failed, before.documents) == (4, 1, 8)
    assert before.durations.counts[0] == 1
    assert before.durations.counts[-1] == 1
    assert before.durations.count == 4
    assert installation.folding.fold_queries() == 0, "it may be written again"
    assert installation.folded_for(SETTLED + 60) == 1
    assert installation.read()["users.get"] == before
    installation.database["stats"].delete_many({})
    assert installation.read()["users.get"] == before
    assert QueryCounters(installation.totals, installation.stretches).read() == installation.read()


def test_a_stretch_that_is_still_written_is_not_folded(installation: Installation) -> None:
    measurements, recorder = installation.process()
    for _ in range(20):
        measurements.record("users.get", 0.001, 1)
        recorder.write()
        installation.later(60)
        assert installation.folding.fold_queries() == 0
    assert installation.read()["users.get"].calls == 20


def test_a_new_clock_watches_before_it_folds(installation: Installation) -> None:
    measurements, recorder = installation.process()
    measurements.record("users.get", 0.001, 1)
    recorder.write()
    assert installation.folded_for(SETTLED - 60) == 0
    installation.later(SETTLED * 10)
    for clock in (installation.folding, installation.new_clock()):
        assert clock.fold_queries() == 0, "after an outage every stretch looks quiet"
    measurements.record("users.get", 0.001, 1)
    recorder.write()
    assert installation.folded_for(SETTLED - 60) == 0
    assert installation.read()["users.get"].calls == 2
    assert installation.folded_for(180) == 1
    assert installation.read()["users.get"].calls == 2


@pytest.mark.parametrize("seed", range(3))
def test_counters_never_fall_and_miss_nothing_while_processes_come_and_go(
    installation: Installation, seed: int
) -> None:
    """Play some hours: processes measure, are quiet, die; clocks fold and are replaced; a reader reads all the time."""
    chance = random.Random(seed)
    processes = [installation.process() for _ in range(3)]
    clocks = [installation.folding]
    recorded: dict[str, int] = {}
    last: Mapping[str, QueryTotal] = {}
    for _ in range(250):
        measurements, _ = chance.choice(processes)
        for _ in range(chance.choice((0, 1, 5))):
            name = chance.choice(("users.get", "slices.claim", "a$b%.c"))
            measurements.record(name, chance.choice((0.0005, 0.02, 3.0, 100.0)), 1)
            recorded[name] = recorded.get(name, 0) + 1
        for _, writer in processes:
            writer.write()
        if chance.random() < 0.05:
            processes[chance.randrange(3)] = installation.process()
        if chance.random() < 0.05:
            clocks = [installation.new_clock(), *clocks[:1]]
        if chance.random() < 0.5:
            chance.choice(clocks).fold_queries()
        if chance.random() < 0.05:
            past = installation.totals.queries()
            assert past is not None
            installation.database["stats"].delete_many({"_id": {"$in": list(past.ids)}})
        now = installation.read()
        for name, before in last.items():
            after = now[name]
            assert after.calls >= before.calls
            assert after.durations.micros >= before.durations.micros
            pairs = zip(after.durations.counts, before.durations.counts, strict=True)
            assert all(new >= old for new, old in pairs), name
        last = now
        for _ in range(chance.choice((1, 1, 2, 8, 40))):
            installation.later(chance.choice((10, 50)))
            for _, writer in processes:
                writer.write()
            clocks[0].step()
    assert {name: total.calls for name, total in installation.read().items()} == recorded
    assert all(total.durations.count == total.calls for total in installation.read().values())


def backdated(world: World) -> None:
    """Let all slices that have ended look as if they did so before what the sums take in now."""
    past = {"$subtract": ["$ended_at", 2 * MARGIN]}
    world.database["slices"].update_many({"ended_at": {"$exists": True}}, [{"$set": {"ended_at": past}}])


def begin(world: World) -> None:
    """Begin the sums a while ago."""
    hour = {"$subtract": ["$$NOW", 240_000]}
    world.database["metric_totals"].update_one({"_id": "slices"}, [{"$set": {"to": hour}}], upsert=True)


def ended(world: World) -> list[dict[str, Any]]:
    return list(world.database["slices"].find({"ended_at": {"$exists": True}}))


def test_each_ended_slice_counts_once(world: World) -> None:
    begin(world)
    world.users([f"u{n}" for n in range(40)], plan="free")
    world.start({"campaign": "one"})
    backdated(world)
    folding = world.app.counter_folding
    assert folding.fold_slices()
    first = world.app.stores.totals.slices()
    assert first is not None
    lanes = {piece.get("lane", "none") for piece in ended(world)}
    assert set(first.lanes) == lanes
    assert sum(sum(total.slices.values()) for total in first.lanes.values()) == len(ended(world))
    assert first.cost.users == sum(piece["results"].get("users", 0) for piece in ended(world)) >= 40
    assert first.cost.sent == len(world.mails()) == 40
    turns = sum(len(piece.get("turns", ())) // 3 for piece in ended(world))
    assert sum(total.waits.count for total in first.lanes.values()) == turns
    assert folding.fold_slices()
    again = world.app.stores.totals.slices()
    assert again is not None
    assert (again.lanes, again.cost) == (first.lanes, first.cost)
    world.database["slices"].delete_many({"ended_at": {"$exists": True}})
    assert folding.fold_slices()
    assert (kept := world.app.stores.totals.slices()) is not None
    assert kept.lanes == first.lanes


def test_a_step_that_dies_half_way_is_repeated_without_counting_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(world)
    world.users([f"u{n}" for n in range(10)], plan="free")
    world.start({"campaign": "one"})
    backdated(world)
    totals, folding = world.app.stores.totals, world.app.counter_folding

    def dies(*_: object) -> bool:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(type(totals), "fold_slices", dies)
        with pytest.raises(RuntimeError):
            folding.fold_slices()
    assert world.app.tally_keeper.step()
    charged = world.app.tallies.dearest(5)
    assert [one.campaign for one in charged] == ["one"]
    assert charged[0].cost.sent == 10
    assert folding.fold_slices()
    after = totals.slices()
    assert after is not None
    assert after.cost.sent == 10
    assert world.app.tallies.dearest(5) == charged
    assert world.app.stores.slices.recorded(timedelta(hours=1))


def test_two_clocks_that_fold_at_once_count_once(world: World) -> None:
    begin(world)
    world.users([f"u{n}" for n in range(10)], plan="free")
    world.start({"campaign": "one"})
    backdated(world)
    totals = world.app.stores.totals
    first, second = totals.next_slices(), totals.next_slices()
    assert first == second
    assert totals.fold_slices(first[1], {}, CampaignCost(1.0, 10, 10))
    assert not totals.fold_slices(second[1], {}, CampaignCost(1.0, 10, 10))
    assert (kept := totals.slices()) is not None
    assert kept.cost == CampaignCost(1.0, 10, 10)
