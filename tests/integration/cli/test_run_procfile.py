"""`tidegate up`: the processes of a Procfile on given services, one campaign from end to end."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.support.installation import Installation

PROCFILE = """
clock: tidegate clock run
feed: exec tidegate feed
all: tidegate worker all
suspect: tidegate worker suspect
"""
HELLO = """
campaign: hello
workspace: shop
kind: one_off
audience: {all: []}
messages:
  - {name: one, channel: email, subject: Hello, body: "Hello {{ user.user_id }}"}
"""
WITHOUT_US = {"PATH": "/usr/bin:/bin"}
"""No folder with a tidegate in it: `up` is called by its whole path."""


@pytest.mark.timeout(200)
def test_a_procfile_sends_a_campaign_and_ctrl_c_ends_every_process(installation: Installation) -> None:
    """All processes start at once on an empty database, though no `tidegate` is on the path."""
    (installation.folder / "Procfile").write_text(PROCFILE)
    (installation.folder / "hello.yaml").write_text(HELLO)
    world = installation.world
    for name in world.database.list_collection_names():
        if name != "settings":  # campaign time
            world.database.drop_collection(name)
    installation.env["TIDEGATE_SERVICES__ELASTIC_URL"] = "http://127.0.0.1:9"  # nothing listens there
    process = installation.start("up", **WITHOUT_US)
    started = {"clock", "feed", "all", "suspect"}
    installation.until(
        lambda: {line["labels"]["process"] for line in installation.lines("worker.started")} >= started,
        "every process",
        process,
    )
    family = installation.family(process)
    commands = {
        " ".join(worker.cmdline()[-2:]): worker.nice() for worker in family if "tidegate" in " ".join(worker.cmdline())
    }
    own = psutil.Process().nice()
    assert (commands["worker all"], commands["clock run"]) == (own + 3, own), "a fleet gives way as its policy says"
    assert not (installation.folder / "var" / "services.json").exists(), "given services are not started"
    world.users([f"u{i}" for i in range(10)])
    assert installation.call("campaign", "apply", "hello.yaml").code == 0
    lanes = ["control", "fast", "deliver"]
    installation.until(lambda: not world.app.liveness.missing(lanes), "all to be alive", process)
    result = installation.call("campaign", "launch", "hello")
    assert result.code == 0
    assert "warning" not in result.err
    installation.until(lambda: world.state("hello") == "finished", "the end of the campaign", process)
    assert len(world.mails()) == 10
    world.check()
    result = installation.call("status", "--json")
    assert result.code == 0
    assert result.document["up"] == process.pid
    assert {row["state"] for row in result.document["services"]} == {"given"}
    assert {row["name"]: (row["state"], row["restarts"]) for row in result.document["processes"]} == dict.fromkeys(
        sorted(started), ("running", 0)
    )
    assert installation.end(process, signal.SIGINT) == 130
    installation.until(lambda: installation.ended(family), "the end of every process")
    result = installation.call("status")
    assert result.code == 1
    assert "campaigns do not progress" in result.out
    (installation.folder / "hello.yaml").write_text(HELLO.replace("campaign: hello", "campaign: again"))
    assert installation.call("campaign", "apply", "hello.yaml").code == 0
    result = installation.call("campaign", "launch", "again")
    assert result.code == 0
    missing = ("no clock", "no feed", "no worker of the lane control", "no worker of the lane deliver")
    assert all(item in result.err for item in ("warning: it cannot progress", *missing)), result.err


def test_status_sees_a_process_elsewhere_through_the_stores(installation: Installation) -> None:
    """A worker without a supervisor of this folder, as on another machine."""
    process = installation.start("worker", "all")
    lanes = ["control", "fast", "deliver"]
    installation.until(lambda: installation.world.app.liveness.missing(lanes) == ["no clock", "no feed"], "it", process)
    result = installation.call("status", "--json")
    assert (result.code, result.document["up"], result.document["processes"]) == (0, None, None)
    (process_,) = result.document["elsewhere"]
    assert process_["process"] == "all"
    assert set(lanes) <= set(process_["lanes"])
    assert installation.end(process) == 0
    assert "no worker of the lane fast" in installation.world.app.liveness.missing(lanes)


def started(installation: Installation) -> int:
    """Return how many worker processes have logged their start."""
    return len(installation.lines("worker.started"))


def test_a_killed_process_of_a_fleet_is_replaced(installation: Installation) -> None:
    process = installation.start("worker", "all")
    installation.until(lambda: started(installation) == 1, "the start", process)
    (child,) = psutil.Process(process.pid).children()
    child.kill()
    installation.until(lambda: started(installation) == 2, "the start of another", process)
    assert "ended by SIGKILL" in installation.said()
    family = installation.family(process)
    assert installation.end(process, signal.SIGTERM) == 0
    assert installation.ended(family)


def test_a_fleet_can_be_dramatiqs_own_command(installation: Installation) -> None:
    process = installation.start("worker", "all", "--dramatiq")
    installation.until(lambda: started(installation) == 1, "the start", process)
    assert "dramatiq" in psutil.Process(process.pid).cmdline()
    assert installation.end(process, signal.SIGTERM) == 0
