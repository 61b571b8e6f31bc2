"""`tidegate gate`: what it shows, what it refuses, and that running processes follow it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.conftest import tidegate
from tests.support.installation import Installation, Told

__all__ = ["tidegate"]

Tidegate = Callable[..., Told]


def test_a_gate_that_nobody_has_used_is_open(installation: Installation, tidegate: Tidegate) -> None:
    shown = tidegate("gate", "show")
    assert shown.code == 0, shown.err
    assert "open: no limit" in shown.out
    assert "not measured yet; above p95 250 ms bulk work gives way" in shown.out
    assert "no process that does bulk work is alive" in shown.err


def test_a_set_gate_shows_until_when_and_why_and_an_automatic_one_no_more(
    installation: Installation, tidegate: Tidegate
) -> None:
    assert tidegate("gate", "set", "--limit", "0.5", "--for", "5m", "--why", "nightly backup").code == 0
    shown = tidegate("gate", "show")
    assert "limited to 0.50 operations at a time" in shown.out
    assert "set by hand until" in shown.out
    assert "nightly backup" in shown.out
    document = tidegate("gate", "show", "--json").document
    assert (document["limit"], document["held"]["as"], document["held"]["why"]) == (0.5, "limit", "nightly backup")
    assert tidegate("gate", "set", "--closed").code == 0
    assert tidegate("gate", "show", "--json").document["limit"] == 0
    assert tidegate("gate", "set", "--automatic").code == 0
    assert tidegate("gate", "show", "--json").document["held"] is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "give one of --limit NUMBER, --open, --closed and --automatic"),
        (("--open", "--closed"), "give one of --limit NUMBER, --open, --closed and --automatic"),
        (("--limit", "0"), "--limit: expected a number above 0 and at most 1000, got 0"),
        (("--limit", "2000"), "--limit: expected a number above 0 and at most 1000, got 2000"),
        (("--open", "--for", "8d"), "--for: expected at most 7d, got 8d"),
        (("--open", "--for", "soon"), "--for: "),
    ],
)
def test_a_wrong_setting_is_refused_and_changes_nothing(
    installation: Installation, tidegate: Tidegate, arguments: tuple[str, ...], problem: str
) -> None:
    result = tidegate("gate", "set", *arguments)
    assert result.code == 2
    assert problem in result.err
    assert tidegate("gate", "show", "--json").document["held"] is None


def test_a_broker_that_is_away_is_named(installation: Installation) -> None:
    result = installation.call("gate", "show", TIDEGATE_SERVICES__BROKER_URL="redis://127.0.0.1:1/0")
    assert result.code == 3
    assert "the broker's Redis, which holds the gate, does not answer" in result.err


def test_a_closed_gate_holds_a_campaign_and_an_open_one_lets_it_go_on(
    installation: Installation, tidegate: Tidegate
) -> None:
    world = installation.world
    world.users([f"u{number}" for number in range(20)], plan="free")
    world.apply({"campaign": "hello", "kind": "one_off", "audience": {"plan": "free"}})
    process = installation.running()
    installation.until(lambda: tidegate("gate", "show", "--json").document["members"], "a member", process)
    assert tidegate("gate", "set", "--closed", "--for", "5m", "--why", "backup").code == 0
    installation.until(lambda: installation.lines("gate.held"), "the closed gate", process)
    world.launch("hello")
    installation.until(lambda: installation.lines("slice.released", reason="gate_closed"), "a release", process)
    assert not world.mails()
    assert tidegate("gate", "set", "--automatic").code == 0
    installation.until(lambda: world.state("hello") == "finished", "the campaign's end", process)
    assert len(world.mails()) == 20
