"""The table of metrics, its page, the alert rules, their runbooks and the board name the same metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.telemetry.metric_types import METRICS, Kind, of_sample, page, table

ROOT = Path(__file__).parents[3]
FILES = ROOT / "conf" / "observability"
RULES: list[dict[str, Any]] = yaml.safe_load((FILES / "tidegate-alerts.yaml").read_text(encoding="utf-8"))["groups"][0][
    "rules"
]
BOARD: dict[str, Any] = json.loads((FILES / "grafana-board.json").read_text(encoding="utf-8"))
TESTS: list[dict[str, Any]] = yaml.safe_load((FILES / "tidegate-alerts-test.yaml").read_text(encoding="utf-8"))["tests"]
NAME = re.compile(r"\btidegate_[a-z_]+")
SELECTOR = re.compile(r"\b(tidegate_[a-z_]+)(?:\{([^}]*)\})?")


def expressions() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in BOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"].removeprefix("label_values(").rpartition(",")[0]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_each_expression_names_metrics_and_labels_of_the_table(where: str, expression: str) -> None:
    found = SELECTOR.findall(expression)
    assert found or expression.startswith("max(up"), where
    for name, selector in found:
        metric = of_sample(name)
        assert metric is not None, f"{where}: there is no metric {name}"
        assert name != metric.name or metric.kind is Kind.GAUGE, f"{where}: {name} needs _total, _bucket or _count"
        labels = {part.partition("=")[0].rstrip("!") for part in selector.split('",') if part}
        assert labels <= {*metric.labels, "le"}, f"{where}: {name} has no such label"
        grouped = re.findall(rf"by \(([a-z_, ]+)\) \([^()]*{name}\b", expression)
        for group in grouped:
            assert {label.strip() for label in group.split(",")} <= {*metric.labels, "le"}, where


def test_each_metric_has_a_name_and_a_type_that_prometheus_expects() -> None:
    for name, metric in METRICS.items():
        assert NAME.fullmatch(name)
        assert not name.endswith(("_total", "_count", "_sum", "_bucket")), "the type adds it"
        assert (metric.unit != "seconds") or name.endswith("_seconds"), name
        assert metric.meaning.endswith("."), name


def test_the_page_of_the_metrics_has_their_table() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert page(text) == text, "python -m engine.telemetry.metric_types > docs/metrics.md"
    assert all(metric.sample in table() for metric in METRICS.values())


def test_each_alert_has_a_runbook_a_severity_and_a_summary() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        text = (ROOT / rule["annotations"]["runbook_url"]).read_text(encoding="utf-8")
        assert rule["alert"] in text, "the page names its alert"
        for heading in ("## What it means", "## First look", "## Mend it", "## It is over when"):
            assert heading in text, f"{rule['annotations']['runbook_url']} lacks {heading}"


def test_each_runbook_belongs_to_an_alert() -> None:
    pages = {f"docs/runbooks/{path.name}" for path in (ROOT / "docs" / "runbooks").glob("*.md")}
    assert pages == {rule["annotations"]["runbook_url"] for rule in RULES}


def test_each_alert_has_a_history_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires, silent = set(), set()
    for history in TESTS:
        for one in history["alert_rule_test"]:
            (fires if one["exp_alerts"] else silent).add(one["alertname"])
    assert fires == silent == {rule["alert"] for rule in RULES}


def test_the_board_has_no_two_panels_in_one_place() -> None:
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in BOARD["panels"]]
    assert len(places) == len(set(places)) == len({panel["id"] for panel in BOARD["panels"]})
    assert BOARD["uid"] == "tidegate"
