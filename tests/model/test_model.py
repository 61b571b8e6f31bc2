"""The campaign's whole life against the reference: `TIDEGATE_MODEL_SEQUENCES` sequences, 1,000 by default."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.interruptions import harden, remember
from tests.model.machine import Campaign
from tests.model.memory_world import Installation, MemoryWorld

SEQUENCES = os.environ.get("TIDEGATE_MODEL_SEQUENCES")
"""How many random sequences; without it 1,000 that are always the same, so that what fails can be repeated."""

STEPS = int(os.environ.get("TIDEGATE_MODEL_STEPS", "14"))


@pytest.mark.long(seconds=40)
@pytest.mark.timeout(0 if SEQUENCES else 600)
def test_whatever_crosses_what_nobody_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds: list[MemoryWorld] = []

    def use(world: MemoryWorld) -> None:
        worlds[:] = [world]

    harden(monkeypatch, lambda: worlds[0])
    remember(monkeypatch)
    monkeypatch.setattr(Campaign, "shared", Installation(tmp_path), raising=False)
    monkeypatch.setattr(Campaign, "using", staticmethod(use), raising=False)
    run_state_machine_as_test(
        Campaign,
        settings=settings(
            max_examples=int(SEQUENCES or 1_000),
            derandomize=SEQUENCES is None,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
            print_blob=True,
            report_multiple_bugs=False,
            database=None,
        ),
    )
