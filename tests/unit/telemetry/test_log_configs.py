"""The configs of other log shippers parse, name the same files and stream, and hold no credentials."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from engine.stores.search.log_index import STREAM, TEMPLATE
from engine.telemetry.contract import EVENTS
from engine.telemetry.log_files import PATTERN
from engine.telemetry.redaction import Redactor

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted((ROOT / "conf" / "logs").glob("*.y*ml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_shippers_config_reads_our_files_and_writes_our_stream(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert isinstance(yaml.safe_load(text), dict)
    assert f"/{PATTERN}" in text
    assert STREAM in text or all(part in text for part in STREAM.split("-"))
    assert Redactor(b"k" * 16).text(text).count("[") == text.count("["), "no credentials"


def test_each_common_shipper_has_a_config() -> None:
    assert [path.name for path in CONFIGS] == ["filebeat.yml", "fluent-bit.yaml", "vector.yaml"]


def test_the_index_template_fits_the_stream() -> None:
    template = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    assert template["index_patterns"] == [STREAM.rsplit("-", 1)[0] + "-*"]
    assert template["data_stream"] == {}
    assert template["priority"] > 200, "above the templates that Elasticsearch brings for logs-*-*"


def test_the_page_about_logs_has_a_row_for_every_event() -> None:
    page = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
    rows = {line for line in page.splitlines() if line.startswith("| `")}
    expected = set()
    for name, kind in EVENTS.items():
        measured = ", ".join(f"`{measure}` ({unit})" for measure, unit in kind.measurements.items())
        expected.add(f"| `{name}` | {kind.level} | {kind.meaning} | {measured} |")
    assert rows == expected, "copy the missing rows into docs/logs.md"
