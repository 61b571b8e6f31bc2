"""`--json` writes exactly one document to stdout and nothing else; its numbers are right."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from engine.clock import format_instant
from tests.acceptance.test_cli_help import commands
from tests.support.installation import Installation, Told
from tests.support.pipeline_world import START

Tidegate = Callable[..., Told]
WITH_JSON = sorted(
    name
    for name, command in commands().items()
    if any("--json" in parameter.opts for parameter in command.params)  # type: ignore[attr-defined]
)
CALLS = {
    "access list": "access list",
    "campaign apply": "campaign apply campaigns/hello.yaml",
    "campaign list": "campaign list",
    "campaign plan": "campaign plan hello",
    "campaign preview": "campaign preview hello",
    "campaign report": "campaign report hello",
    "campaign show": "campaign show hello",
    "check": "check",
    "clock show": "clock show",
    "explain": "explain hello u1",
    "gate show": "gate show",
    "import events": "import events events.csv -w shop",
    "import lists": "import lists list.csv -w shop --list vip",
    "import users": "import users users.csv -w shop",
    "logs search": "logs search campaign:hello",
    "map": "map",
    "policy check": "policy check",
    "policy diff": "policy diff policies policies",
    "policy history": "policy history",
    "policy route": "policy route campaigns/hello.yaml",
    "policy show": "policy show",
    "policy simulate": "policy simulate",
    "queue deadletters": "queue deadletters fast",
    "queue list": "queue list",
    "stats": "stats",
    "status": "status",
    "user show": "user show u1 -w shop",
}


@pytest.fixture
def live(installation: Installation) -> Installation:
    """A shop with ten users, of whom six are free, and one campaign for these."""
    world = installation.world
    world.users([f"u{i}" for i in range(6)], plan="free")
    world.users([f"u{i}" for i in range(6, 10)], plan="pro")
    world.apply({"campaign": "hello", "audience": {"plan": "free"}, "holdout": "10%"})
    folder = installation.folder
    (folder / "users.csv").write_text("user_id,age\nu1,30\n")
    (folder / "events.csv").write_text("user_id,name,time\nu1,Seen,2026-01-01\n")
    (folder / "list.csv").write_text("user_id\nu1\n")
    installation.env["TIDEGATE_SERVICES__ELASTIC_URL"] = "http://127.0.0.1:9"
    return installation


def test_each_command_with_json_is_called_here() -> None:
    assert sorted(CALLS) == WITH_JSON


@pytest.mark.parametrize("name", WITH_JSON)
def test_stdout_is_one_document(name: str, live: Installation, tidegate: Tidegate) -> None:
    result = tidegate(*CALLS[name].split(), "--json")
    codes = {"check": {0, 1, 3}, "status": {1}}  # no process runs here or elsewhere
    assert result.code in codes.get(name, {0}), result.err
    assert isinstance(json.loads(result.out), dict | list)


def test_a_plan_has_the_numbers_of_the_launch(live: Installation, tidegate: Tidegate) -> None:
    answer = tidegate("campaign", "plan", "hello", "--json").document
    assert answer["as_of"] == format_instant(START)
    assert (answer["users"], answer["audience"], answer["holdout"]) == (10, 6, 0.1)
    assert (answer["slices"], answer["batch"], answer["cost"], answer["reads_events"]) == (1, 1000, "quick", False)
    assert (answer["profile"], answer["lane"], answer["deliver_lane"]) == ("default", "fast", "deliver")
    live.world.launch("hello")
    live.world.settle()
    assert len(live.world.enrolments("hello")) == answer["audience"]


def test_a_plan_of_a_slow_audience_counts_each_user(live: Installation, tidegate: Tidegate) -> None:
    for user in ("u1", "u7"):
        live.world.event(user, "Order Completed", START - 1)
    audience = {"event": {"name": "Order Completed", "within": "30d"}}
    live.world.apply({"campaign": "slow", "audience": audience})
    answer = tidegate("campaign", "plan", "slow", "--json").document
    assert (answer["audience"], answer["reads_events"], answer["cost"], answer["lane"]) == (2, True, "slow", "slow")


def test_a_launch_refuses_an_audience_of_another_size(live: Installation, tidegate: Tidegate) -> None:
    result = tidegate("campaign", "launch", "hello", "--expect", "8")
    assert result.code == 2
    assert "6 users" in result.err
    assert live.world.state("hello") == "draft"
    assert tidegate("campaign", "launch", "hello", "--expect", "8", "--drift", "25").code == 0
    assert live.world.state("hello") == "scheduled"


def test_a_report_has_enrolments_messages_and_runs(live: Installation, tidegate: Tidegate) -> None:
    live.world.launch("hello")
    live.world.settle()
    answer = tidegate("campaign", "report", "hello", "--json").document
    held = answer["holdout"]
    assert (answer["state"], answer["entered"], answer["active"], answer["adds_up"]) == ("live", 6, 0, True)
    assert answer["exited"] == {"completed": 6}
    states = {"sent": 6 - held} | ({"skipped(holdout)": held} if held else {})
    assert answer["messages"] == {"one": {"decided": 6, **states}}
    assert {run["kind"] for run in answer["runs"]} >= {"launch"}


def test_an_apply_reports_the_changes_and_a_dry_run_makes_none(live: Installation, tidegate: Tidegate) -> None:
    file = live.folder / "campaigns" / "hello.yaml"
    file.write_text(file.read_text().replace("plan: free", "plan: pro"))
    answer = tidegate("campaign", "apply", str(file), "--dry-run", "--json").document
    assert (answer[0]["revision"], answer[0]["created"]) == (2, False)
    assert answer[0]["changes"]
    assert live.world.record("hello").revision == 1
    assert tidegate("campaign", "apply", str(file)).code == 0
    assert live.world.record("hello").revision == 2
