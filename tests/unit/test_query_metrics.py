"""Measure named queries: calls, documents, durations, and the worst call with its campaign."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from engine import query_metrics
from engine.query_metrics import DIGITS, LONGEST, Figure, Measurements, measured, named_queries, working_on


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Measurements]:
    """Measurements of this test alone; stores that were decorated earlier write into their own."""
    own = Measurements()
    monkeypatch.setattr(query_metrics, "MEASUREMENTS", own)
    return own


def only(measurements: Measurements) -> Figure:
    (figure,) = measurements.figures()
    return figure


def durations(figure: Figure) -> HdrHistogram:
    return HdrHistogram.decode(figure.durations)


def test_a_block_is_one_call_with_its_documents(fresh: Measurements) -> None:
    with measured("cache.read") as call:
        call.documents = 7
    figure = only(fresh)
    assert (figure.name, figure.calls, figure.failed, figure.documents) == ("cache.read", 1, 0, 7)
    assert durations(figure).get_total_count() == 1


def test_a_block_that_raises_is_a_failed_call(fresh: Measurements) -> None:
    with pytest.raises(KeyError), measured("cache.read"):
        raise KeyError
    assert (only(fresh).calls, only(fresh).failed) == (1, 1)


def test_the_public_methods_of_a_store_are_named_after_it(fresh: Measurements) -> None:
    @named_queries("things", apart=("parts",))
    class Things:
        def all(self) -> list[int]:
            return self._kept()

        def _kept(self) -> list[int]:
            return [1, 2, 3]

        def parts(self) -> None:
            with measured("things.first"):
                pass

        def broken(self) -> None:
            raise ValueError

    things = Things()
    assert things.all() == [1, 2, 3]
    things.parts()
    with pytest.raises(ValueError):  # noqa: PT011 - any one will do
        things.broken()
    by_name = {figure.name: (figure.calls, figure.failed, figure.documents) for figure in fresh.figures()}
    assert by_name == {"things.all": (1, 0, 3), "things.first": (1, 0, 0), "things.broken": (1, 1, 0)}


@pytest.mark.parametrize(
    ("answer", "documents"),
    [
        ([1, 2], 2),
        ({"a", "b", "c"}, 3),
        ({"_id": "x", "w": "y"}, 1),
        ({"k1": 1, "k2": 2}, 2),
        (("live", 3), 1),
        ("text", 1),
        (None, 0),
        (12, 0),
        (True, 0),
    ],
)
def test_a_result_states_its_number_of_documents(answer: object, documents: int) -> None:
    assert query_metrics.documents_of(answer) == documents


def test_the_slowest_call_names_the_campaign_of_its_thread() -> None:
    measurements = Measurements()
    measurements.record("users.read_range", 0.1, 500)
    with working_on("c1", "winback"):
        measurements.record("users.read_range", 0.3, 1_000)
        with working_on("c2", "welcome"):
            measurements.record("users.read_range", 0.2, 1_000)
    measurements.record("users.read_range", 0.25, 1)
    worst = only(measurements).worst
    assert (worst.seconds, worst.documents, worst.campaign, worst.campaign_uid) == (0.3, 1_000, "winback", "c1")
    assert worst.at > 0


def test_each_thread_has_its_own_campaign() -> None:
    measurements = Measurements()
    with working_on("c1", "winback"):
        thread = threading.Thread(target=measurements.record, args=("runs.get", 0.1, 1))
        thread.start()
        thread.join()
    assert only(measurements).worst.campaign is None


def test_figures_read_anew_clear_measurements_but_not_the_number_of_calls() -> None:
    measurements = Measurements()
    measurements.record("a", 0.1, 1)
    assert len(measurements.figures(anew=True)) == 1
    assert (measurements.figures(), measurements.calls) == ([], 1)


def test_many_threads_lose_no_call() -> None:
    measurements = Measurements()

    def calls() -> None:
        for _ in range(2_000):
            measurements.record("a", 0.001, 2)

    threads = [threading.Thread(target=calls) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figure = only(measurements)
    assert (figure.calls, figure.documents, durations(figure).get_total_count()) == (8_000, 16_000, 8_000)


@given(st.lists(st.floats(0, 7_200), min_size=1, max_size=60), st.sampled_from([50, 95, 99]))
def test_a_quantile_is_within_two_percent_of_the_measured_value(seconds: list[float], share: int) -> None:
    measurements = Measurements()
    for second in seconds:
        measurements.record("a", second, 0)
    quantile = durations(only(measurements)).get_value_at_percentile(share)
    ordered = sorted(min(max(1, int(second * 1e6)), LONGEST) for second in seconds)
    exact = ordered[max(1, int(share * len(ordered) / 100 + 0.5)) - 1]  # the histogram's own rank
    assert abs(quantile - exact) <= max(1, 0.02 * exact)
    assert DIGITS == 2
