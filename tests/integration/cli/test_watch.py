"""`campaign launch --watch` and `report --watch`: through a pipe as lines, on a terminal as bars."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys

from tests.support.installation import PATIENCE, Installation


def filled(installation: Installation, **more: object) -> None:
    world = installation.world
    world.users([f"u{n}" for n in range(30)], plan="free")
    world.apply({"campaign": "hello", "kind": "one_off", "audience": {"plan": "free"}, **more})


def test_a_launch_is_followed_to_its_end_as_lines_on_stderr(installation: Installation) -> None:
    filled(installation)
    installation.running()
    told = installation.call("campaign", "launch", "hello", "--watch")
    assert told.code == 0, told.err
    assert told.out == ""
    lines = [line for line in told.err.splitlines() if line.startswith("hello: ")]
    assert lines[-1].startswith("hello: ended")
    assert "30 of 30 messages sent" in lines[-1]
    report = installation.call("campaign", "report", "hello", "--watch", "--json")
    assert report.code == 0
    assert json.loads(report.out)["entered"] == 30


def test_a_campaign_that_is_paused_ends_the_following_with_code_1(installation: Installation) -> None:
    filled(installation)
    installation.world.launch("hello")
    installation.world.tick()
    installation.world.app.commands.pause(installation.world.record("hello"), "for a test")
    told = installation.call("campaign", "report", "hello", "--watch")
    assert told.code == 1
    assert "hello is paused: for a test" in told.err
    assert "enrolments" in told.out, "the report follows all the same"


def test_a_terminal_shows_bars_and_ctrl_c_leaves_the_campaign_alone(installation: Installation) -> None:
    filled(installation, starts_at="2000-01-01T00:00:00Z")
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.cli", "campaign", "launch", "hello", "--watch"],
        cwd=installation.folder,
        env=installation.environment({"TERM": "xterm", "COLUMNS": "120"}),
        stdin=follower,
        stdout=subprocess.DEVNULL,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    said = b""
    while b"hello: sending" not in said:
        said += os.read(leader, 4_096)
    process.send_signal(signal.SIGINT)
    while True:
        try:
            part = os.read(leader, 4_096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    os.close(leader)
    assert process.wait(PATIENCE) == 130
    assert b"the campaign goes on" in said
    assert installation.world.state("hello") == "scheduled"
