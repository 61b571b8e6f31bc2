"""`tidegate policy`, called as a user calls it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from engine.cli.policy import mount
from engine.errors import EngineError
from engine.policy.load import load_policies

ROOT = Path(__file__).parents[3]

CAMPAIGN = """\
campaign: {name}
workspace: shop
kind: continuous
audience: {audience}
messages: [{{name: hello, channel: email, subject: Hello, body: Hi}}]
"""


class Desk:
    """An operator's folder, and the commands that run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recorded: list[Mapping[str, object]] = []

    def run(self, *words: str) -> Result:
        app = typer.Typer()
        mount(app, self._history)
        return CliRunner().invoke(app, ["policy", *words])

    def json(self, *words: str) -> Any:
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def record(self, at: int) -> None:
        policies = load_policies(self.folder / "policies")
        self.recorded.insert(0, {"_id": policies.version, "first_used_at": at, "content": policies.plain()})

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / "policies" / name
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")

    def _history(self, _context: typer.Context) -> Sequence[Mapping[str, object]]:
        return self.recorded


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    shutil.copytree(ROOT / "examples" / "broken" / "workspaces", tmp_path / "conf" / "workspaces")
    (tmp_path / "campaigns").mkdir()
    for name, audience in (("quick", "{plan: pro}"), ("slow", "{event: {name: Coupon Redeemed, within: 30d}}")):
        (tmp_path / "campaigns" / f"{name}.yaml").write_text(
            CAMPAIGN.format(name=name, audience=audience), encoding="utf-8"
        )
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)


def test_check_says_that_the_policies_are_valid(desk: Desk) -> None:
    version = load_policies(desk.folder / "policies").version
    assert desk.run("check").stdout == f"valid (version {version})\n"


def test_check_of_a_file_shows_the_changes_before_it_is_saved(desk: Desk) -> None:
    edited = desk.folder / "bulk.yaml"
    text = (desk.folder / "policies" / "profiles" / "bulk.yaml").read_text(encoding="utf-8")
    edited.write_text(text.replace("in_flight: 4", "in_flight: 8"), encoding="utf-8")
    assert desk.run("check", str(edited)).stdout == (
        "profiles.bulk.in_flight: 8 (was 4)\nno campaign moves (of 2 in files)\n"
    )
    document = desk.json("check", str(edited))
    assert document["differences"] == [{"key": "profiles.bulk.in_flight", "before": 4, "after": 8}]
    assert document["before"] != document["after"]


def test_check_of_a_file_shows_what_moves_who_serves_it_and_what_needs_a_restart(desk: Desk) -> None:
    text = (desk.folder / "policies" / "lanes.yaml").read_text(encoding="utf-8")
    after = desk.folder / "edited"
    shutil.copytree(desk.folder / "policies", after)
    text = text.replace("fast: {lanes: [control, looks, fast]", "fast: {lanes: [control, looks]")
    text = text.replace("niceness: 5", "niceness: 9").replace("lanes: [deliver]", "lanes: [deliver, post]")
    text = text.replace("\nfleets:", "\n  quick: {}\n  post: {kind: deliver}\nfleets:\n  hares: {lanes: [fast, quick]}")
    (after / "lanes.yaml").write_text(text, encoding="utf-8")
    for profile in (after / "profiles").glob("*.yaml"):
        edited = profile.read_text(encoding="utf-8").replace("lane: fast", "lane: slow")
        profile.write_text(f"{edited}\n" if "deliver_lane" in edited else f"{edited}\ndeliver_lane: post\n")
    result = desk.run("check", str(after))
    said = result.stdout.splitlines()
    assert "only the campaign files are looked at" in result.stderr
    assert "campaigns that move (of 2 in files):" in said
    assert "  shop/quick: decides in slow (was fast), delivers in post (was deliver)" in said
    assert "  shop/slow: delivers in post (was deliver)" in said
    assert "  lane fast: served by hares (was fast)" in said
    assert "  lane quick: new, served by hares" in said
    assert said[said.index("fleets that serve no campaign:") + 1] == "  hares"
    restart = said[said.index("only a restart brings into force:") + 1 :]
    assert any(line.startswith("  the fleet hares is new: add `hares: tidegate worker hares`") for line in restart)
    assert "  fleets.slow.niceness: restart its processes" in restart
    document = desk.json("check", str(after))
    assert document["campaigns"] == {"files": 2, "live": None}
    assert [(move["before"]["lane"], move["after"]["lane"]) for move in document["moved"]] == [
        ("fast", "slow"),
        ("slow", "slow"),
    ]
    assert {"lane": "fast", "before": ["fast"], "after": ["hares"]} in document["lanes"]
    assert (document["idle_fleets"], len(document["restart"])) == (["hares"], 3)


def test_check_leaves_out_a_campaign_file_that_cannot_be_read(desk: Desk) -> None:
    (desk.folder / "campaigns" / "broken.yaml").write_text("campaign: broken\n")
    edited = desk.folder / "bulk.yaml"
    text = (desk.folder / "policies" / "profiles" / "bulk.yaml").read_text(encoding="utf-8")
    edited.write_text(text.replace("in_flight: 4", "in_flight: 8"), encoding="utf-8")
    result = desk.run("check", str(edited))
    assert result.exit_code == 0
    assert "broken.yaml is left out" in result.stderr


def test_check_refuses_a_broken_edit_with_exit_code_2(desk: Desk) -> None:
    edited = desk.folder / "bulk.yaml"
    edited.write_text("profile: bulk\nlane: fsat\n", encoding="utf-8")
    error = desk.run("check", str(edited)).exception
    assert isinstance(error, EngineError)
    assert error.exit_code == 2
    assert str(error) == f'{edited}:2:7: lane: there is no lane "fsat" (did you mean "fast"?)'


def test_check_of_a_mended_file_works_while_saved_files_are_broken(desk: Desk) -> None:
    good = (desk.folder / "policies" / "profiles" / "bulk.yaml").read_text(encoding="utf-8")
    desk.edit("profiles/bulk.yaml", "weight: 0.5", "weight: half")
    mended = desk.folder / "bulk.yaml"
    mended.write_text(good, encoding="utf-8")
    result = desk.run("check", str(mended))
    assert result.exit_code == 0
    assert "cannot be compared" in result.stderr


def test_show_writes_out_every_default(desk: Desk) -> None:
    assert desk.json("show", "default")["content"]["slice_users"] == 20_000
    assert set(desk.json("show")["content"]) == {"lanes", "fleets", "profiles", "workspaces", "rates", "gates"}
    result = desk.run("show")
    assert result.exit_code == 0
    assert "suspect" in result.stdout


def test_show_of_an_unknown_profile_names_the_known_ones(desk: Desk) -> None:
    error = desk.run("show", "gone").exception
    assert isinstance(error, EngineError)
    assert "lifecycle" in error.remedy


def test_history_lists_versions_with_their_times(desk: Desk) -> None:
    desk.record(0)
    assert desk.json("history") == [{"version": desk.recorded[0]["_id"], "first_used_at": "1970-01-01T00:00:00.000Z"}]
    assert str(desk.recorded[0]["_id"]) in desk.run("history").stdout


def test_diff_compares_the_version_in_force_with_the_folder(desk: Desk) -> None:
    desk.record(0)
    desk.edit("profiles/default.yaml", "45d", "30d")
    assert desk.run("diff").stdout == "profiles.default.inactivity: 30d (was 45d)\n"


def test_diff_takes_versions_and_folders(desk: Desk) -> None:
    desk.record(0)
    shutil.copytree(desk.folder / "policies", desk.folder / "old")
    desk.edit("lanes.yaml", "time_limit: 120s, depth: 1", "time_limit: 120s, depth: 3")
    desk.record(1)
    new, old = (str(version["_id"]) for version in desk.recorded)
    expected = [{"key": "lanes.slow.depth", "before": 1, "after": 3}]
    assert desk.json("diff", old, new)["differences"] == expected
    assert desk.json("diff", "old", new[:6])["differences"] == expected
    assert desk.json("diff", "old", "policies")["differences"] == expected


def test_diff_with_an_unknown_version_says_where_to_look(desk: Desk) -> None:
    error = desk.run("diff", "abc").exception
    assert isinstance(error, EngineError)
    assert "policy history" in error.remedy


def test_route_shows_profile_reason_and_lanes_of_a_campaign_file(desk: Desk) -> None:
    document = desk.json("route", "campaigns/slow.yaml")
    assert (document["profile"], document["lane"], document["deliver_lane"], document["cost"]) == (
        "default",
        "slow",
        "deliver",
        "slow",
    )
    assert document["why"] == "no other profile matches"
    assert "decides in" in desk.run("route", "campaigns/quick.yaml").stdout


def test_route_of_a_name_without_mongodb_says_that_the_measurement_is_unknown(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = desk.json("route", "quick")
    assert (document["lane"], document["workspace"]) == ("fast", "shop")
    assert "tidegate up" in document["measured"]["unknown"]
    assert "unknown" in desk.run("route", "quick").stdout
    monkeypatch.setenv("TIDEGATE_SERVICES__MONGO_URL", "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=50")
    monkeypatch.setenv("TIDEGATE_SERVICES__BROKER_URL", "redis://127.0.0.1:9/0")
    monkeypatch.setenv("TIDEGATE_SERVICES__CACHE_URL", "redis://127.0.0.1:9/1")
    assert "MongoDB" in desk.json("route", "quick")["measured"]["unknown"]


def test_route_of_an_unknown_name_names_it(desk: Desk) -> None:
    error = desk.run("route", "nobody").exception
    assert isinstance(error, EngineError)
    assert "nobody" in str(error)


def test_route_accepts_facts_instead_of_a_file(desk: Desk) -> None:
    words = ("route", "--workspace", "shop", "--campaign", "any", "--kind", "one_off")
    assert desk.json(*words)["profile"] == "bulk"
    assert desk.json(*words)["why"].startswith("matches kind: one_off; priority ")
    assert desk.json(*words, "--profile", "lifecycle")["why"] == "named by the campaign"
    assert desk.json(*words, "--profile", "lifecycle", "--slowed")["lane"] == "slow"


def test_route_without_arguments_asks_for_a_campaign(desk: Desk) -> None:
    error = desk.run("route").exception
    assert isinstance(error, EngineError)
    assert error.exit_code == 2


def test_simulate_shows_who_shares_a_lane_and_who_moves(desk: Desk) -> None:
    now = desk.json("simulate")["campaigns"]
    assert {row["campaign"]: (row["lane"], row["share"], row["moved_from"]) for row in now} == {
        "quick": ("fast", 1.0, None),
        "slow": ("slow", 1.0, None),
    }
    edited = desk.folder / "lifecycle.yaml"
    edited.write_text("profile: lifecycle\nmatches: {campaign: quick}\nlane: slow\nweight: 3\n", encoding="utf-8")
    then = desk.json("simulate", "--edited", str(edited))["campaigns"]
    assert {row["campaign"]: (row["share"], row["moved_from"]) for row in then} == {
        "quick": (0.75, "fast"),
        "slow": (0.25, None),
    }
    assert "moved_from" in desk.run("simulate").stdout
