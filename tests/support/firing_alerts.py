"""Which alerts fire on a metrics text: Prometheus' own tool evaluates our rules as if the text stayed for an hour."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

FILES = Path(__file__).parents[2] / "conf" / "observability"
LASTING = 60
"""Minutes for which the metrics stay as they are: longer than the `for` of any alert."""


def promtool() -> str:
    """Return the program; skip the test without it, but fail in CI."""
    found = shutil.which("promtool")
    if found is None:
        assert not os.environ.get("CI"), "CI needs promtool: .ci/install-debian"
        pytest.skip("promtool is missing: apt install prometheus")
    return found


def firing(text: str | None, folder: Path) -> dict[str, set[str]]:
    """Return the alerts that fire if a web process shows this text for an hour (None: no process answers).

    The result maps each alert to the values of its labels. `folder` takes a file.
    """
    series = [{"series": 'up{job="tidegate"}', "values": f"{int(text is not None)}x{LASTING}"}]
    for family in text_string_to_metric_families(text or ""):
        for sample in family.samples:
            labels = ",".join(f"{name}={json.dumps(value)}" for name, value in sample.labels.items())
            if not sample.name.endswith(("_bucket", "_sum", "_count")):
                series.append({"series": f"{sample.name}{{{labels}}}", "values": f"{sample.value!r}x{LASTING}"})
    asked = {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{LASTING - 1}m", "exp_samples": []}
    test = {
        "rule_files": [str(FILES / "tidegate-alerts.yaml")],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [asked]}],
    }
    file = folder / "as-it-is.json"  # JSON is YAML
    file.write_text(json.dumps(test), encoding="utf-8")
    done = subprocess.run([promtool(), "test", "rules", str(file)], capture_output=True, timeout=60, check=False)
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 0 or "exp:" in said, said
    found: dict[str, set[str]] = {}
    for labels in re.findall(r'\{__name__="ALERTS", ([^}]*)\}', said):
        pairs = dict(re.findall(r'(\w+)="(.*?)"', labels))
        if "alertname" in pairs:
            values = {value for name, value in pairs.items() if name not in {"alertname", "alertstate"}}
            found.setdefault(pairs["alertname"], set()).update(values)
    return found
