"""The loader refuses every file of `examples/broken` with the line, column and text that the file itself states."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.campaign.load import load_campaign
from engine.catalogue.workspace_file import read_workspaces
from engine.errors import InvalidSource
from engine.policy.load import load_policies
from engine.policy.policyset import PolicySet

ROOT = Path(__file__).parents[3]
BROKEN = ROOT / "examples" / "broken"
CAMPAIGNS = sorted((BROKEN / "campaigns").glob("*.yaml"))
POLICIES = [*sorted((BROKEN / "lanes").glob("*.yaml")), *sorted((BROKEN / "profiles").glob("*.yaml"))]


def _expected(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("# expect: ") for line in lines if line.startswith("# expect: ")]


def _faults(error: InvalidSource, file: Path) -> list[str]:
    return [str(fault).removeprefix(f"{file}:").removeprefix(f"{file.parent}/") for fault in error.faults]


@pytest.fixture(scope="module")
def good() -> PolicySet:
    return load_policies(ROOT / "policies")


@pytest.mark.parametrize("file", CAMPAIGNS, ids=lambda file: file.stem)
def test_a_broken_campaign_file_is_refused_with_its_place(file: Path, good: PolicySet) -> None:
    with pytest.raises(InvalidSource) as refused:
        load_campaign(file, read_workspaces(BROKEN / "workspaces"), good)
    assert _faults(refused.value, file) == _expected(file) != []


@pytest.mark.parametrize("file", POLICIES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_broken_policy_file_is_refused_with_its_place(file: Path, tmp_path: Path) -> None:
    edited = tmp_path / ("lanes.yaml" if file.parent.name == "lanes" else file.name)
    shutil.copy(file, edited)
    with pytest.raises(InvalidSource) as refused:
        load_policies(ROOT / "policies", edited=edited)
    assert _faults(refused.value, edited) == _expected(file) != []


def test_there_are_enough_broken_campaigns_and_policies() -> None:
    assert len(CAMPAIGNS) >= 45
    assert len(POLICIES) >= 45
