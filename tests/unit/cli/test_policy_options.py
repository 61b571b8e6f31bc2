"""Options that list a few words without importing the models use the words of the models."""

from __future__ import annotations

import typing

from engine.cli import policy
from engine.policy.models import CampaignKind, Cost


def test_the_options_of_policy_route_are_those_of_the_models() -> None:
    hints = typing.get_type_hints(policy.show_route, vars(policy) | {"typer": policy.typer})
    assert set(typing.get_args(hints["kind"])) == {str(kind) for kind in CampaignKind}
    assert set(typing.get_args(hints["cost"])) == {str(cost) for cost in Cost}
