"""What a process reports of itself: counts from its events, rates, and busy threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from engine.query_metrics import Measurements
from engine.telemetry import process_counts
from engine.telemetry.events import emit, subscribe
from engine.telemetry.process_counts import ProcessCounts


class Times:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    clock = Times()
    monkeypatch.setattr(process_counts, "monotonic", clock)
    return clock


@pytest.fixture
def counts(times: Times) -> Iterator[ProcessCounts]:
    counting = ProcessCounts(dict, lambda: 1_000)
    end = subscribe(counting)
    yield counting
    end()


def test_batches_and_slices_count_for_the_lane_of_the_message_in_hand(counts: ProcessCounts) -> None:
    with counts.working("fast"):
        emit("batch.decided", slice="s", users=40, duration=timedelta(seconds=1))
        emit("batch.decided", slice="s", users=2)
        emit("slice.closed", slice="s")
    with counts.working("deliver"):
        emit("batch.delivered", slice="d", sent=7, failed=1, retried=2)
        emit("slice.released", slice="d", reason="turn_over")
    assert counts.report().totals == {
        "batches.fast": 2,
        "users.fast": 42,
        "slices.fast": 1,
        "batches.deliver": 1,
        "slices.deliver": 1,
        "deliveries.email.sent": 7,
        "deliveries.email.failed": 1,
        "deliveries.email.retried": 2,
    }


def test_a_rate_is_that_of_the_last_ten_seconds(counts: ProcessCounts, times: Times) -> None:
    counts.report()
    for _ in range(20):  # ten mails a second for 20 s, a report each
        times.now += 1
        emit("batch.delivered", slice="d", sent=10)
        last = counts.report()
    assert last.rates["deliveries.email.sent"] == pytest.approx(10)
    for _ in range(12):
        times.now += 1
        last = counts.report()
    assert "deliveries.email.sent" not in last.rates
    assert last.totals["deliveries.email.sent"] == 200


def test_the_changes_that_the_feed_handles_count(counts: ProcessCounts) -> None:
    emit("feed.handled", users=12, looks=3)
    assert counts.report().totals == {"changes": 12}


def test_a_thread_is_busy_between_begin_and_end_however_often_each_is_said(counts: ProcessCounts) -> None:
    entered, leave = threading.Event(), threading.Event()

    def work() -> None:
        counts.begin("slow")
        counts.begin("slow")
        entered.set()
        leave.wait(10)
        counts.end()
        counts.end()

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait(10)
    with counts.working("fast"):
        assert counts.report(threads=4).busy == 2
    leave.set()
    thread.join()
    report = counts.report(threads=4)
    assert (report.busy, report.threads, report.memory) == (0, 4, 1_000)


def test_calls_of_a_store_go_on_counting_when_the_measurements_are_written_and_reset() -> None:
    measured = Measurements()
    measured.record("users.read_range", 0.1, 5)
    measured.record("cache.read", 0.1, 5, failed=True)
    measured.record("elastic.search", 0.1, 5)
    measured.figures(anew=True)
    measured.record("runs.get", 0.1, 1)
    assert measured.by_store() == {"mongodb": (2, 0), "cache": (1, 1), "elasticsearch": (1, 0)}
    assert measured.forget(measured.calls)
    assert measured.by_store() == {"mongodb": (2, 0), "cache": (1, 1), "elasticsearch": (1, 0)}
