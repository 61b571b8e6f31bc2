"""The first minutes of a user: `init`, a look around, `up` with the Procfile that it wrote, and the end of it."""

from __future__ import annotations

import shutil
import signal

import pytest

from engine.local.procfile import read_procfile
from tests.integration.installation import Installation


@pytest.fixture
def fresh(installation: Installation) -> Installation:
    """A folder of one's own, begun with `init`, without the files of the tests' shop."""
    home = installation.folder
    shutil.rmtree(home)
    home.parent.mkdir(exist_ok=True)
    installation.folder = home.parent
    told = installation.call("init", home.name)
    assert told.code == 0, told.err
    installation.folder = home
    installation.env["TIDEGATE_SERVICES__ELASTIC_URL"] = "http://127.0.0.1:9"  # nobody answers there
    return installation


def test_init_writes_what_every_command_accepts_and_touches_nothing_twice(fresh: Installation) -> None:
    files = {str(path.relative_to(fresh.folder)) for path in fresh.folder.rglob("*") if path.is_file()}
    assert {"Procfile", ".env.example", "policies/lanes.yaml", "conf/settings.yaml", ".gitignore"} <= files
    assert fresh.call("policy", "check").code == 0
    settings = fresh.folder / "conf" / "settings.yaml"
    settings.write_text("# mine\n")
    told = fresh.call("init")
    assert (told.code, told.out) == (2, "")
    assert "exists" in told.err
    assert settings.read_text() == "# mine\n"


@pytest.mark.long(seconds=30)
@pytest.mark.timeout(280)
def test_the_example_is_applied_launched_and_sent_by_the_processes_of_its_procfile(fresh: Installation) -> None:
    process = fresh.start("up")
    wanted = {kind.name for kind in read_procfile(fresh.folder / "Procfile")} - {"ship"}
    fresh.until(
        lambda: {line["labels"]["process"] for line in fresh.lines("worker.started")} >= wanted,
        f"the start of {wanted}",
        process,
    )
    family = fresh.family(process)
    (fresh.folder / "users.csv").write_text("user_id,email\nsam,sam@x.example\npat,pat@x.example\n")
    (fresh.folder / "orders.csv").write_text("user_id,name,time,value\nsam,Order Completed,2026-01-01,12.50\n")
    for words in (
        "import users users.csv -w example",
        "import events orders.csv -w example",
        "campaign apply campaigns/welcome-back.yaml",
        "campaign launch welcome-back --expect 0",
        "clock advance --to 2026-02-15",
    ):
        told = fresh.call(*words.split())
        assert told.code == 0, told.err
    (mail,) = (fresh.folder / "var" / "maildir" / "new").iterdir()
    assert "To: sam@x.example" in mail.read_text()
    assert "01 January 2026" in mail.read_text()
    report = fresh.call("campaign", "report", "welcome-back", "--json")
    assert (report.code, report.document["entered"]) == (0, 1)
    assert fresh.call("status").code == 0
    assert fresh.end(process, signal.SIGINT) == 130
    fresh.until(lambda: fresh.ended(family), "the end of every process")
