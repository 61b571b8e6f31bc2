"""`tidegate run` as a real process: one campaign from file to mails, and every way to end."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.support.installation import Installation

HELLO = """
campaign: hello
workspace: shop
kind: one_off
audience: {all: []}
messages:
  - {name: one, channel: email, subject: Hello, body: "Hello {{ user.user_id }}"}
  - {name: two, channel: email, subject: Again, body: "Again {{ user.user_id }}", wait: 2d}
"""


def test_a_campaign_is_sent_and_a_sigterm_ends_every_process(installation: Installation) -> None:
    installation.world.users([f"u{i}" for i in range(20)])
    process = installation.running()
    family = installation.family(process)
    assert len(family) > 1, "the suspects have a child"
    (installation.folder / "hello.yaml").write_text(HELLO)
    assert installation.call("campaign", "apply", "hello.yaml").code == 0
    assert installation.call("campaign", "launch", "hello").code == 0
    installation.until(lambda: len(installation.world.mails()) == 20, "the first message", process)
    assert installation.call("clock", "advance", "--by", "2d").code == 0
    assert len(installation.world.mails()) == 40
    result = installation.call("campaign", "report", "hello", "--json")
    assert (result.code, result.document["adds_up"], result.document["exited"]) == (0, True, {"completed": 20})
    family += [worker for worker in installation.family(process) if worker not in family]
    assert installation.end(process, signal.SIGTERM) == 0
    installation.until(lambda: installation.ended(family), "the end of every process")
    assert installation.lines("worker.stopped")
    assert "Traceback" not in installation.said()
    installation.world.check()


def test_ctrl_c_ends_run_with_130(installation: Installation) -> None:
    process = installation.running()
    family = installation.family(process)
    assert installation.end(process, signal.SIGINT) == 130
    installation.until(lambda: installation.ended(family), "the end of every process")


def test_a_kill_leaves_no_process_behind(installation: Installation) -> None:
    process = installation.running()
    installation.until(lambda: len(installation.family(process)) > 3, "the child of the suspects", process)
    family = installation.family(process)
    process.kill()
    process.wait()
    installation.until(lambda: installation.ended(family), "the end of every process")


def test_a_killed_process_is_restarted_and_works(installation: Installation) -> None:
    process = installation.running()
    (engine,) = psutil.Process(process.pid).children()
    engine.kill()
    installation.until(lambda: installation.said().count("tidegate runs:") == 2, "its return", process)
    installation.world.user("u")
    installation.world.apply({"campaign": "hello", "kind": "one_off"})
    installation.world.launch("hello")
    installation.until(lambda: installation.world.state("hello") == "finished", "the end of the campaign", process)
    family = installation.family(process)
    assert installation.end(process) == 0
    assert installation.ended(family)


def test_a_second_run_in_the_same_folder_is_refused(installation: Installation) -> None:
    process = installation.running()
    result = installation.call("run")
    assert result.code == 2
    assert "already runs" in result.err
    assert len(result.err.splitlines()) <= 3
    assert process.poll() is None
    assert installation.end(process) == 0


@pytest.mark.long(seconds=40)
@pytest.mark.timeout(200)
def test_the_next_run_finishes_the_work_of_a_killed_one_without_a_second_mail(
    installation: Installation,
) -> None:
    installation.world.users([f"u{i}" for i in range(1_500)])
    process = installation.running()
    installation.world.apply({"campaign": "hello", "kind": "one_off"})
    installation.world.launch("hello")
    installation.until(lambda: len(installation.world.mails()) > 100, "some mails", process)
    process.kill()
    process.wait()
    again = installation.start("run")
    installation.until(lambda: installation.said().count("tidegate runs:") == 2, "its fleets", again)
    installation.until(lambda: installation.world.state("hello") == "finished", "the end of the campaign", again)
    assert len(installation.world.mails()) == 1_500
    installation.world.check()
    assert installation.end(again) == 0
