"""Metrics as text: the Prometheus format 0.0.4, or OpenMetrics 1.0 for those who ask for it.

It keeps no state of its own and uses no global registry: what it shows was read for this one answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

from engine.domain.metric_totals import Buckets
from engine.errors import ProgrammerError
from engine.telemetry.metric_types import METRICS, Labels, MetricType

if TYPE_CHECKING:
    from prometheus_client import Metric

Value: TypeAlias = "float | tuple[tuple[float, ...], Buckets]"
"""A number, or the bounds of a histogram with its counts."""

Samples: TypeAlias = Mapping[str, Mapping[Labels, Value]]
"""The values of each metric by its labels; a metric that could not be read is missing."""

OPEN_METRICS: Final = "application/openmetrics-text"


def exposition(samples: Samples, accept: str = "") -> tuple[bytes, str]:
    """Return the metrics as text, and its content type, in the format that `accept` (the request's header) prefers.

    Raises `ProgrammerError` for a metric or labels that `engine.telemetry.metric_types` does not have.
    """
    from prometheus_client import exposition as plain
    from prometheus_client.openmetrics import exposition as open_metrics

    collected = _Collected(samples)
    if OPEN_METRICS in accept:
        text: bytes = open_metrics.generate_latest(collected)  # type: ignore[no-untyped-call]
        return text, open_metrics.CONTENT_TYPE_LATEST
    return plain.generate_latest(collected), plain.CONTENT_TYPE_PLAIN_0_0_4


class _Collected:
    """Metrics that were read, as the client library collects them."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics in the order of their table."""
        unknown = self._samples.keys() - METRICS.keys()
        if unknown:
            raise ProgrammerError(f"metrics without a row in engine/telemetry/metric_types.py: {sorted(unknown)}")
        for name, metric in METRICS.items():
            if self._samples.get(name):
                yield _family(metric, self._samples[name])


def _family(metric: MetricType, values: Mapping[Labels, Value]) -> Metric:
    from prometheus_client import Metric

    family = Metric(metric.name, f"{metric.meaning} Unit: {metric.unit}.", metric.kind.value)
    for labels, value in sorted(values.items(), key=lambda item: item[0]):
        if len(labels) != len(metric.labels):
            raise ProgrammerError(f"{metric.name} has the labels {metric.labels}, not {labels}")
        named = dict(zip(metric.labels, labels, strict=True))
        if isinstance(value, tuple):
            bounds, buckets = value
            for bound, count in cumulative(bounds, buckets):
                family.add_sample(f"{metric.name}_bucket", {**named, "le": bound}, count)
            family.add_sample(f"{metric.name}_count", named, buckets.count)
            family.add_sample(f"{metric.name}_sum", named, buckets.seconds)
        else:
            family.add_sample(metric.sample, named, value)
    return family


def cumulative(bounds: tuple[float, ...], buckets: Buckets) -> list[tuple[str, int]]:
    """Return the counts up to each bound, and up to infinity."""
    counted, rows = 0, []
    for bound, count in zip((*bounds, float("inf")), buckets.counts, strict=True):
        counted += count
        rows.append(("+Inf" if bound == float("inf") else repr(bound), counted))
    return rows
