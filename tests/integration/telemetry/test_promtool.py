"""Prometheus' own tool accepts the metrics and the alert rules, and its unit tests of each alert pass."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.telemetry.exposition import exposition
from tests.support.pipeline_world import World

FILES = Path(__file__).parents[3] / "conf" / "observability"


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        assert not os.environ.get("CI"), "CI needs promtool: .ci/install-debian"
        pytest.skip("promtool is missing: apt install prometheus")
    return found


def run(*words: str, given: bytes = b"") -> str:
    done = subprocess.run(words, input=given, capture_output=True, timeout=60, check=False, cwd=FILES)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def test_the_rules_are_valid(promtool: str) -> None:
    assert "SUCCESS" in run(promtool, "check", "rules", "tidegate-alerts.yaml")


def test_each_alert_fires_in_its_history_and_is_silent_in_the_other(promtool: str) -> None:
    assert "SUCCESS" in run(promtool, "test", "rules", "tidegate-alerts-test.yaml")


def test_the_metrics_of_a_running_installation_are_accepted(promtool: str, world: World) -> None:
    world.users(["a", "b"], plan="free")
    world.start({"campaign": "one", "kind": "one_off"})
    world.app.live_campaigns.refresh()
    assert world.app.tally_keeper.step()
    world.app.counter_folding.step()
    text, _ = exposition(world.app.metrics.read())
    assert b'tidegate_deliveries{channel="email",outcome="sent",workspace="shop"} 2.0' in text
    assert run(promtool, "check", "metrics", given=text) == ""
