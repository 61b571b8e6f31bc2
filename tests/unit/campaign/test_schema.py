"""The JSON Schemas in `conf/schemas` match the models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.campaign.schema import schemas

FOLDER = Path(__file__).parents[3] / "conf" / "schemas"


@pytest.mark.parametrize("name", sorted(schemas()))
def test_the_schema_in_conf_is_the_one_of_the_model(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == schemas()[name], (
        "python -m engine.campaign.schema conf/schemas"
    )


def test_every_key_of_a_campaign_has_a_completion() -> None:
    document = json.loads(schemas()["campaign.schema.json"])
    assert {"campaign", "audience", "messages", "holdout"} <= set(document["properties"])
    assert document["additionalProperties"] is False
    assert {"event", "within", "exits"} <= set(document["$defs"]["GoalRule"]["properties"])


def test_a_profile_has_its_keys_as_they_are_written() -> None:
    document = json.loads(schemas()["profile.schema.json"])
    assert "pass" in document["properties"]
    assert "pass_every" not in document["properties"]
