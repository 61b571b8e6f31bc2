"""Measurements of processes are stored and merged: quantiles, the slowest call, tuners, quiet stretches, runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from engine.clock import SystemClock, millis
from engine.decisions.batch_size import Tuner
from engine.domain.document import Document
from engine.domain.enrolment import Enrolment, Outgoing, Settled
from engine.domain.keys import enrolment_prefix
from engine.domain.lifecycle import DeliveryState, RunState
from engine.domain.work import Run, RunKind
from engine.pipeline.insight.statistics import queries, sizes
from engine.pipeline.insight.statistics_recorder import STRETCH, StatisticsRecorder
from engine.query_metrics import Measurements, working_on
from engine.stores.migrations import migrate_mongo
from engine.stores.mongo.campaign_counts import Counts
from engine.stores.mongo.enrolments import Enrolments
from engine.stores.mongo.query_statistics import KEPT, Statistics
from engine.stores.mongo.runs import Runs
from tests.support.decision_cases import DAY, NOW, enrolment

DAYS = timedelta(days=1)


class HandClock(SystemClock):
    """System time that a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def system_now(self) -> int:
        return self.now


class Away(Exception):
    """A store that does not answer."""


class Unreachable:
    """Raise as an unreachable store."""

    def write(self, stretch: object) -> None:
        raise Away


@pytest.fixture
def statistics(database: Database[Document]) -> Statistics:
    migrate_mongo(database)
    return Statistics(database)


def recording(
    statistics: Statistics, measurements: Measurements, clock: HandClock, tuner: Tuner | None = None
) -> StatisticsRecorder:
    return StatisticsRecorder(lambda: statistics, tuner or Tuner(), clock, (Away,), measurements)


def test_measurements_of_two_processes_merge_as_if_one_had_made_them(statistics: Statistics) -> None:
    clock = HandClock()
    alone, parts = Measurements(), (Measurements(), Measurements())
    for n in range(1, 1_001):
        with working_on(f"c{n}", f"campaign-{n}"):
            for item in (alone, parts[n % 2]):
                item.record("users.read_range", n / 1_000, 10, failed=n == 7)
    for part in parts:
        assert recording(statistics, part, clock).write()
    (answer,) = queries(statistics.since(NOW))
    assert (answer.name, answer.calls, answer.failed, answer.documents) == ("users.read_range", 1_000, 1, 10_000)
    assert answer.median == pytest.approx(0.500, rel=0.02)
    assert answer.p95 == pytest.approx(0.950, rel=0.02)
    assert answer.p99 == pytest.approx(0.990, rel=0.02)
    assert (answer.worst.seconds, answer.worst.campaign, answer.worst.campaign_uid) == (1.0, "campaign-1000", "c1000")
    recording(statistics, alone, HandClock()).write()
    (doubled,) = queries(statistics.since(NOW))
    assert (doubled.calls, doubled.median, doubled.p99) == (2_000, answer.median, answer.p99)


def test_a_process_has_one_document_an_hour_and_writes_only_new_measurements(
    statistics: Statistics, database: Database[Document]
) -> None:
    clock, measurements = HandClock(), Measurements()
    writer = recording(statistics, measurements, clock)
    assert not writer.write()
    measurements.record("a", 0.1, 1)
    assert writer.write()
    assert not writer.write()
    measurements.record("a", 0.1, 1)
    assert writer.write()
    assert database.stats.count_documents({}) == 1
    clock.now += STRETCH
    measurements.record("a", 0.1, 1)
    assert writer.write()
    clock.now += 1
    measurements.record("a", 0.5, 1)
    assert writer.write()
    assert [[figure.calls for figure in part.figures] for part in statistics.since(NOW)] == [[3], [1]]
    assert sum(query.calls for query in queries(statistics.since(clock.now))) == 1


def test_the_last_measurements_of_a_process_are_kept(statistics: Statistics) -> None:
    measurements = Measurements()
    writer = recording(statistics, measurements, HandClock())
    writer.stop()
    assert statistics.since(0) == []
    writer = recording(statistics, measurements, HandClock())
    writer.start("fast")
    measurements.record("a", 0.1, 1)
    writer.stop()
    writer.stop()
    (stretch,) = statistics.since(0)
    assert (stretch.process, stretch.figures[0].calls) == ("fast", 1)


def test_an_unreachable_store_loses_no_measurement(statistics: Statistics) -> None:
    stores: list[Any] = [Unreachable()]
    measurements = Measurements()
    writer = StatisticsRecorder(lambda: stores[-1], Tuner(), HandClock(), (Away,), measurements)
    measurements.record("a", 0.1, 1)
    with pytest.raises(Away):
        writer.write()
    stores.append(statistics)
    assert writer.write()
    assert queries(statistics.since(NOW))[0].calls == 1


def test_tuner_evidence_has_the_latest_state_of_each_process(statistics: Statistics) -> None:
    for seconds in (1e-5, 2e-5):
        tuner, measurements, clock = Tuner(), Measurements(), HandClock()
        writer = recording(statistics, measurements, clock, tuner)
        for _ in range(40):
            size = tuner.choose("users.read_range", (500, 1_000))
            tuner.measured("users.read_range", size, size, timedelta(seconds=seconds * size + 0.001))
            measurements.record("users.read_range", 0.1, size)
            writer.write()
        clock.now += STRETCH
        measurements.record("users.read_range", 0.1, 1)
        writer.write()
        measurements.record("users.read_range", 0.1, 1)
        writer.write()
    small, large = sizes(statistics.since(0))
    assert (small.batches + large.batches, small.processes, large.chosen) == (80, 2, 2)
    assert small.users == small.batches * 500
    assert large.p95 == pytest.approx(2.1e-5)
    assert large.median == pytest.approx(1.1e-5)


def test_measurements_expire_after_a_week(statistics: Statistics, database: Database[Document]) -> None:
    (index,) = [each for each in database.stats.list_indexes() if each["name"] == "until"]
    assert index["expireAfterSeconds"] == KEPT.total_seconds() == 7 * 86_400


def test_quiet_stretches_end_in_a_message_or_a_conversion(database: Database[Document]) -> None:
    sent = DeliveryState.SENT

    def one(
        name: str, *, settled: tuple[float, ...] = (), going: float | None = None, converted: float | None = None
    ) -> Enrolment:
        at = [NOW + millis(DAYS * days) for days in settled]
        return replace(
            enrolment(name=name, entered_at=NOW),
            settled=tuple(Settled(f"m{n}", sent, when) for n, when in enumerate(at)),
            outgoing=None if going is None else Outgoing("next", DeliveryState.QUEUED, NOW + millis(DAYS * going), NOW),
            converted_at=None if converted is None else NOW + millis(DAYS * converted),
        )

    Enrolments(database).enter(
        [
            one("quiet"),
            one("first", settled=(2.5,)),
            one("series", settled=(0.0, 7.0), going=7.5),
            one("buyer", settled=(1.0,), converted=10.2),
            one("between", settled=(4.0, 8.0), converted=6.0),
        ]
    )
    counts = Counts(database)
    assert counts.quiet_stretches(enrolment_prefix("shop", "c1"), 100) == {0: 1, 1: 2, 2: 2, 3: 1, 4: 1, 7: 1, 10: 1}
    assert sum(counts.quiet_stretches(enrolment_prefix("shop", "c1"), 2).values()) < 9
    assert counts.quiet_stretches(enrolment_prefix("shop", "c2"), 100) == {}


def test_results_are_summed_over_the_decided_runs_of_each_campaign(database: Database[Document]) -> None:
    migrate_mongo(database)
    runs = Runs(database)
    for number, (campaign, results) in enumerate(
        [
            ("c1", {"users": 1_000, "chosen": 10}),
            ("c1", {"users": 50}),
            ("c2", {"users": 5, "holdout": 1}),
            ("c3", None),
        ]
    ):
        run = Run(f"r{number}", "shop", campaign, RunKind.DUE, NOW + number * DAY, RunState.PLANNING)
        runs.add(run)
        runs.move(run, RunState.RUNNING)
        if results is not None:
            runs.move(replace(run, state=RunState.RUNNING), RunState.DECIDED, results)
    assert runs.results_of(["c1", "c2", "c3", "c4"]) == {
        "c1": {"users": 1_050, "chosen": 10},
        "c2": {"users": 5, "holdout": 1},
    }
    assert runs.results_of(["c2"]) == {"c2": {"users": 5, "holdout": 1}}
