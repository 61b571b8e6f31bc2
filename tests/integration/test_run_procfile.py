"""`tidegate up`: the processes of a Procfile on services that are given, one campaign from end to end."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.integration.installation import Installation

PROCFILE = """
clock: tidegate clock run
all: tidegate worker all
suspect: tidegate worker suspect
"""


@pytest.mark.timeout(200)
def test_a_procfile_sends_a_campaign_and_a_ctrl_c_ends_every_process(installation: Installation) -> None:
    (installation.folder / "Procfile").write_text(PROCFILE)
    world = installation.world
    world.users([f"u{i}" for i in range(10)])
    installation.env["TIDEGATE_SERVICES__ELASTIC_URL"] = "http://127.0.0.1:9"  # nobody answers there
    process = installation.start("up")
    started = {"clock", "all", "suspect"}
    installation.until(
        lambda: {line["labels"]["process"] for line in installation.lines("worker.started")} >= started,
        "every process",
        process,
    )
    family = installation.family(process)
    assert not (installation.folder / "var" / "services.json").exists(), "given services are not started"
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    installation.until(lambda: world.state("hello") == "finished", "the end of the campaign", process)
    assert len(world.mails()) == 10
    world.check()
    told = installation.call("status", "--json")
    assert told.code == 0
    assert told.document["up"] == process.pid
    assert {one["state"] for one in told.document["services"]} == {"given"}
    assert installation.end(process, signal.SIGINT) == 130
    installation.until(lambda: installation.ended(family), "the end of every process")


def started(installation: Installation) -> int:
    """How often a worker process has told that it started."""
    return len(installation.lines("worker.started"))


def test_a_process_of_a_fleet_that_is_killed_is_there_again(installation: Installation) -> None:
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
