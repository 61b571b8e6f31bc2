"""Exit codes 0, 1, 2, 3 and 130, and errors that state place, problem, reason and remedy."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.installation import Installation, Told

Tidegate = Callable[..., Told]
CAMPAIGN = """campaign: hello
workspace: shop
kind: one_off
audience:
  all:
    - plann: free
messages:
  - {name: one, channel: email, subject: Hello, body: Hello}
"""


def short(told: Told) -> None:
    assert 1 <= len(told.err.splitlines()) <= 3, told.err
    assert "Traceback" not in told.err
    assert told.err.startswith("tidegate: ")


def test_a_mistake_in_a_campaign_is_reported_with_its_place_and_a_suggestion(
    tidegate: Tidegate, installation: Installation
) -> None:
    (installation.folder / "hello.yaml").write_text(CAMPAIGN)
    result = tidegate("campaign", "apply", "hello.yaml")
    short(result)
    assert (result.code, result.out) == (2, "")
    assert re.search(r"hello\.yaml:6:7: .*plann.*did you mean plan\?", result.err)
    assert installation.world.app.stores.campaigns.everything() == []


def test_one_wrong_file_of_several_applies_none(tidegate: Tidegate, installation: Installation) -> None:
    (installation.folder / "good.yaml").write_text(CAMPAIGN.replace("plann", "plan"))
    (installation.folder / "bad.yaml").write_text(CAMPAIGN.replace("hello", "other", 1))
    assert tidegate("campaign", "apply", "good.yaml", "bad.yaml").code == 2
    assert installation.world.app.stores.campaigns.everything() == []


@pytest.mark.parametrize(
    ("file", "text", "place"),
    [
        ("policies/profiles/default.yaml", "profile: default\nlane: fsat\n", "default.yaml:2:7"),
        ("policies/lanes.yaml", "lanes: {}\nfleets: {}\n", "lanes.yaml:1:8"),
        ("conf/workspaces/shop.yaml", "workspace: shop\nattributes: {age: intt}\n", "shop.yaml:2:19"),
        ("conf/settings.yaml", "environments:\n  default:\n    engine: {leese: 3s}\n", "settings.yaml:3:14"),
    ],
)
def test_a_mistake_in_any_file_has_path_line_and_column(
    tidegate: Tidegate, installation: Installation, file: str, text: str, place: str
) -> None:
    (installation.folder / "hello.yaml").write_text(CAMPAIGN.replace("plann", "plan"))
    path = installation.folder / file
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    result = tidegate("campaign", "apply", "hello.yaml")
    assert result.code == 2
    assert place in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    "words",
    [
        "campaign show nosuch",
        "campaign plan nosuch",
        "campaign launch nosuch",
        "campaign report nosuch",
        "campaign pause nosuch",
        "campaign replay nosuch",
        "explain nosuch u",
        "user show u -w shop",
        "user show u -w nosuch",
        "user erase u -w shop --yes",
        "campaign apply nosuch.yaml",
        "import users nosuch.csv -w shop",
        "queue replay nosuch",
        "queue deadletters nosuch",
        "queue replay fast nosuch",
        "queue drop fast nosuch",
        "worker nosuch",
        "clock advance --by soon",
        "clock advance --to sometime",
        "clock advance --to 2026-01-02 --by 1d",
        "--set engine.leese=3s campaign list",
        "--settings nosuch.yaml campaign list",
        "--settings nosuch.yaml --env nosuch campaign list",
        "stats -w nosuch",
        "up --procfile policies",
        "init /dev/null",
        "init /proc/nosuch",
        "policy show nosuch",
    ],
)
def test_a_missing_or_unreadable_thing_exits_2_with_three_lines(tidegate: Tidegate, words: str) -> None:
    result = tidegate(*words.split())
    assert (result.code, result.out) == (2, "")
    short(result)


def test_an_erasure_needs_confirmation(tidegate: Tidegate, installation: Installation) -> None:
    installation.world.user("u")
    result = tidegate("user", "erase", "u", "-w", "shop")
    assert result.code == 2
    assert "--yes" in result.err
    assert tidegate("user", "show", "u", "-w", "shop").code == 0


def test_a_command_that_the_campaign_state_forbids_exits_2(tidegate: Tidegate, installation: Installation) -> None:
    installation.world.apply({"campaign": "hello"})
    result = tidegate("campaign", "pause", "hello")
    assert result.code == 2
    short(result)
    assert result.err == ("tidegate: shop/hello is draft: it cannot be paused\n  tidegate campaign launch starts it\n")


def test_rejected_rows_above_the_limit_exit_1(tidegate: Tidegate, installation: Installation) -> None:
    (installation.folder / "users.csv").write_text("user_id,age\na,1\nb,many\n")
    result = tidegate("import", "users", "users.csv", "-w", "shop")
    assert result.code == 1
    assert tidegate("import", "users", "users.csv", "-w", "shop", "--max-rejects", "1", "--restart").code == 0


def test_a_service_that_does_not_answer_exits_3(
    tidegate: Tidegate, monkeypatch: pytest.MonkeyPatch, installation: Installation
) -> None:
    address = "mongodb://app:hunter2@127.0.0.1:9/?timeoutMS=500"
    monkeypatch.setenv("TIDEGATE_SERVICES__MONGO_URL", address)
    result = tidegate("campaign", "list")
    short(result)
    assert (result.code, result.out) == (3, "")
    assert "hunter2" not in result.err


def test_a_missing_service_is_reported_with_a_remedy(
    tidegate: Tidegate, monkeypatch: pytest.MonkeyPatch, installation: Installation
) -> None:
    monkeypatch.delenv("TIDEGATE_SERVICES__MONGO_URL")
    result = tidegate("campaign", "list")
    short(result)
    assert result.code == 3
    assert "tidegate up" in result.err


def test_an_interrupted_command_exits_130_without_further_output(installation: Installation) -> None:
    world = installation.world
    world.user("u")
    world.apply({"campaign": "hello"})
    world.launch("hello")  # no worker runs, so the wait goes on
    process = installation.start("clock", "advance", "--by", "1d")
    before = world.now
    installation.until(lambda: world.now > before, "campaign time to move", process)
    assert installation.end(process, signal.SIGINT) == 130
    assert "Traceback" not in installation.said()


def test_a_traceback_is_shown_with_debug_only(tidegate: Tidegate) -> None:
    assert "Traceback" in tidegate("--debug", "campaign", "show", "nosuch").err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("clock advance --to sometime", "--to: expected a moment such as 2026-12-01T08:00Z, got 'sometime'"),
        ("clock advance --by soon", "--by: expected a duration such as 90s, 15m, 12h or 14d, got 'soon'"),
        ("clock advance --by 1d --patience x", "--patience: expected a duration such as"),
        ("campaign launch hello --expect many", "Invalid value for '--expect': expected a whole number\n"),
        ("campaign launch hello --path x", "Invalid value for '--path': 'x' is not one of"),
        ("--set engine.leese=3s campaign list", "--set engine.leese: engine.leese: unknown key"),
    ],
)
def test_a_wrong_value_is_reported_with_its_option(tidegate: Tidegate, words: str, expected: str) -> None:
    ran = tidegate(*words.split())
    assert expected in ran.err
    assert "Value error" not in ran.err


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize("words", ["--help", "campaign list", "campaign list --json"])
def test_a_full_disk_under_stdout_is_reported_without_a_traceback(installation: Installation, words: str) -> None:
    with FULL.open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "engine.cli", *words.split()],
            cwd=installation.folder,
            env=installation.environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert ran.stderr == "tidegate: the operating system refused: No space left on device\n  --debug shows where\n"
    assert ran.returncode == 1


def test_a_broken_workspace_file_affects_only_its_own_campaigns(tidegate: Tidegate, installation: Installation) -> None:
    world = installation.world
    world.workspace("other")
    world.reload()
    world.user("u")
    world.user("v", "other")
    world.apply({"campaign": "mine"})
    world.apply({"campaign": "theirs", "workspace": "other"})
    broken = installation.folder / "conf" / "workspaces" / "other.yaml"
    broken.write_text("workspace: other\nattributes: {age: intt}\n")
    place = "workspaces/other.yaml:2:19: attributes.age"

    rows = {row["check"]: row for row in tidegate("check", "--json").document}
    assert (rows["workspaces"]["ok"], rows["campaigns"]["ok"]) == (False, False)
    assert place in rows["workspaces"]["told"]
    assert place in rows["campaigns"]["told"]
    assert rows["campaigns"]["told"].startswith("other/theirs: ")
    assert "shop/mine" not in rows["campaigns"]["told"]

    assert tidegate("campaign", "plan", "mine").code == 0
    assert tidegate("explain", "mine", "u").code == 0
    assert tidegate("campaign", "launch", "mine").code == 0
    result = tidegate("check", "--indexes")
    assert result.code == 0
    assert "campaign shop/mine: audience: " in result.out
    assert f"campaign other/theirs: cannot be read: conf/{place}" in result.out
    for words in ("campaign plan theirs", "explain theirs v", "import users u.csv -w other", "migrate"):
        result = tidegate(*words.split())
        assert (result.code, result.out) == (2, "")
        assert place in result.err, "who needs the file is told where it is wrong"
    process = installation.start("clock", "run")
    assert process.wait(60) == 2, "a process works on every workspace"
    assert place in installation.said()
