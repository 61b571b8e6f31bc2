"""`tidegate metrics` as a person calls it: the metrics of a running installation, and the files that watch over it."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from engine.telemetry.metric_types import of_sample
from tests.support.installation import Told

Tidegate = Callable[..., Told]
ROOT = Path(__file__).parents[2]


def test_metrics_are_printed_in_both_formats(tidegate: Tidegate) -> None:
    told = tidegate("metrics")
    assert told.code == 0, told.err
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(told.out)
        for sample in family.samples
    }
    assert all(of_sample(str(name)) for name, *_ in samples)
    assert samples["tidegate_up", ("store", "mongodb")] == 1
    assert samples["tidegate_up", ("store", "broker")] == 1
    opened = tidegate("metrics", "--open-metrics")
    assert opened.out.endswith("# EOF\n")


def test_the_files_are_written_with_links_to_where_the_runbooks_are(tmp_path: Path, tidegate: Tidegate) -> None:
    folder = tmp_path / "observability"
    base = "https://wiki.example/tidegate"
    told = tidegate("metrics", "--files", str(folder), "--runbooks", f"{base}/")
    assert told.code == 0, told.err
    rules = (folder / "tidegate-alerts.yaml").read_text(encoding="utf-8")
    assert f"runbook_url: {base}/store-down" in rules
    assert "docs/runbooks" not in rules
    for path in (ROOT / "docs" / "runbooks").iterdir():
        assert filecmp.cmp(path, folder / "runbooks" / path.name, shallow=False)
    again = tidegate("metrics", "--files", str(folder))
    assert again.code == 2
    assert "exists" in again.err
