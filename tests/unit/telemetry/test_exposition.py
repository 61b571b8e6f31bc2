"""The text of the metrics: valid in both formats, with nothing but what was read."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from engine.domain.metric_totals import QUERY_BOUNDS, filled
from engine.errors import ProgrammerError
from engine.telemetry.exposition import Samples, exposition
from engine.telemetry.metric_types import METRICS

SAMPLES: Samples = {
    "tidegate_up": {("mongodb",): 1, ("cache",): 0},
    "tidegate_slices_ended": {("fast", "done"): 3},
    "tidegate_query_seconds": {("users.get",): (QUERY_BOUNDS, filled(QUERY_BOUNDS, [(0.004, 3), (40, 1)]))},
    "tidegate_deliveries": {('sh"op\\\n', "email", "sent"): 7},
}
ASKED = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


def plain(samples: Samples = SAMPLES) -> str:
    return exposition(samples)[0].decode()


def test_both_formats_hold_the_same_samples() -> None:
    def read(families: object) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families  # type: ignore[attr-defined]
            for sample in family.samples
        }

    first, kind = exposition(SAMPLES)
    second, other = exposition(SAMPLES, ASKED)
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    assert other.startswith("application/openmetrics-text; version=1.0.0")
    assert read(parse_plain(first.decode())) == read(parse_open(second.decode()))
    assert second.endswith(b"# EOF\n")


def test_a_histogram_is_cumulative_and_ends_at_its_count() -> None:
    (family,) = [family for family in parse_plain(plain()) if family.name == "tidegate_query_seconds"]
    buckets = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert [sample.value for sample in family.samples if sample.name.endswith("_count")] == [buckets[-1]] == [4]
    assert [sample.value for sample in family.samples if sample.name.endswith("_sum")] == [40.012]


def test_a_label_may_hold_any_text() -> None:
    (family,) = [family for family in parse_plain(plain()) if family.name == "tidegate_deliveries"]
    assert family.samples[0].labels["workspace"] == 'sh"op\\\n'


def test_what_was_not_read_is_absent() -> None:
    text = plain({"tidegate_up": {("mongodb",): 0}, "tidegate_campaigns": {}})
    assert "tidegate_campaigns" not in text
    assert 'tidegate_up{store="mongodb"} 0.0' in text


def test_nothing_of_the_answering_process_is_among_the_metrics() -> None:
    assert list(REGISTRY.collect()), "the client library measures its own process"
    assert "python_" not in plain()
    assert "process_" not in plain()


def test_a_metric_or_a_label_without_a_row_is_refused() -> None:
    with pytest.raises(ProgrammerError, match="tidegate_new"):
        exposition({"tidegate_new": {(): 1}})
    with pytest.raises(ProgrammerError, match="tidegate_up"):
        exposition({"tidegate_up": {("mongodb", "more"): 1}})


def test_each_metric_has_a_help_text() -> None:
    nothing = QUERY_BOUNDS, filled(QUERY_BOUNDS, [])
    samples: Samples = {
        name: {tuple("x" for _ in metric.labels): nothing if metric.kind == "histogram" else 1}
        for name, metric in METRICS.items()
    }
    text = plain(samples)
    assert text.count("# HELP tidegate_") == text.count("# TYPE tidegate_") == len(METRICS)
