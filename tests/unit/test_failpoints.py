"""Failpoints: named points at which a test can end, stop or fail the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import failpoints
from engine.failpoints import POINTS, Failpoint, arm, done, passage

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    arm("")
    yield
    arm("")


def test_unarmed_failpoints_do_nothing() -> None:
    for name in POINTS:
        passage(name)
    assert done() == frozenset()


def test_a_failpoint_raises_only_at_its_first_passage() -> None:
    arm("slice.closed=raise")
    with pytest.raises(Failpoint, match=r"slice\.closed"):
        passage("slice.closed")
    passage("slice.closed")
    assert done() == {"slice.closed"}


def test_a_failpoint_can_fire_at_a_later_passage() -> None:
    arm("slice.closed=raise@3")
    passage("slice.closed")
    passage("slice.closed")
    with pytest.raises(Failpoint):
        passage("slice.closed")


def test_a_failpoint_can_fire_at_every_passage() -> None:
    arm("slice.closed=raise@*")
    for _ in range(3):
        with pytest.raises(Failpoint):
            passage("slice.closed")


def test_a_failpoint_can_keep_the_processor_busy() -> None:
    arm("slice.decided=spin20@*")
    before = time.thread_time()
    passage("slice.decided")
    assert time.thread_time() - before >= 0.02


def test_a_failpoint_can_delay_some_passages_and_another_of_its_actions_others() -> None:
    arm("slice.decided=wait1@*~/a-,slice.decided=raise@*~/b-")
    passage("slice.decided", ["/hh/a-1/"])
    assert done() == {"slice.decided"}
    with pytest.raises(Failpoint):
        passage("slice.decided", ["/hh/b-1/"])
    with pytest.raises(ValueError, match="waitMILLISECONDS"):
        arm("slice.decided=wait")


def test_a_failpoint_can_fire_for_one_user() -> None:
    arm("slice.decided=raise@*~/hh-7/")
    passage("slice.decided", ["/hh-1/", "/hh-2/"])
    passage("slice.decided")
    with pytest.raises(Failpoint):
        passage("slice.decided", ["/hh-1/", "/hh-7/"])


def test_passages_of_failpoints_are_counted_independently() -> None:
    arm("slice.closed=raise@2,enter.inserted=raise")
    passage("slice.closed")
    with pytest.raises(Failpoint):
        passage("enter.inserted")
    with pytest.raises(Failpoint):
        passage("slice.closed")


@pytest.mark.parametrize("text", ["nowhere=kill", "slice.closed", "slice.closed=explode", "slice.closed=kill@x"])
def test_an_invalid_failpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="TIDEGATE_FAILPOINTS"):
        arm(text)


def test_arming_again_replaces_the_previous_failpoints() -> None:
    arm("slice.closed=raise")
    arm("enter.inserted=raise")
    passage("slice.closed")


def test_kill_from_the_environment_ends_the_process_as_a_crash_does() -> None:
    code = (
        "from engine.failpoints import passage as go; go('deliver.sent'); print('once', flush=True); go('deliver.sent')"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TIDEGATE_FAILPOINTS": "deliver.sent=kill@2"},
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (-signal.SIGKILL, b"once\n")


def test_every_failpoint_is_passed_somewhere_in_the_engine() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "engine").rglob("*.py"))
    own = Path(failpoints.__file__).read_text(encoding="utf-8")
    rest = source.replace(own, "")
    assert {name for name in POINTS if f'passage("{name}"' not in rest} == set()
