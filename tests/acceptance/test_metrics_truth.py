"""The metrics against the truth: after deliveries with workers killed, the numbers are those of the Maildir and report.

`TIDEGATE_TRUTH_USERS=100000` runs it with more users than the suite has time for.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from examples.grocer.chaos import Killer
from tests.support.installation import Installation, Told

Tidegate = Callable[..., Told]
USERS = int(os.environ.get("TIDEGATE_TRUTH_USERS", "3000"))
KILLS = 6 + USERS // 5_000
KILL_EVERY = timedelta(seconds=1.5)
"""So many kills, so often: a worker that dies again and again is forked again only after some seconds."""
PATIENCE = 60 + USERS / 100
"""Seconds until everything must be sent."""


def workers(parents: list[subprocess.Popen[bytes]]) -> list[psutil.Process]:
    """Return the processes that the parents have forked: those that do the work."""
    found: list[psutil.Process] = []
    for parent in parents:
        with suppress(psutil.NoSuchProcess):
            found += psutil.Process(parent.pid).children()
    return found


def samples(text: str, name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of a metric by the values of their labels."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


@pytest.mark.long(seconds=40)
@pytest.mark.timeout(PATIENCE + 120)
def test_after_kills_the_metrics_equal_the_maildir_and_the_report(
    installation: Installation, tidegate: Tidegate
) -> None:
    world = installation.world
    world.users([f"u{n}" for n in range(USERS)], plan="free")
    parents = [
        installation.start("worker", "all"),
        installation.start("clock", "run"),
        installation.start("worker", "all"),
    ]
    suspects = installation.start("worker", "suspect")  # a death there would be blamed on its slice
    world.apply({"campaign": "big", "kind": "one_off", "messages": [{"name": "one"}, {"name": "two"}]})
    world.launch("big")
    files = world.settings.maildir / "new"
    pause, deadline = threading.Event(), time.monotonic() + PATIENCE
    sent_before: Counter[str] = Counter()
    installation.until(lambda: files.exists() and any(files.iterdir()), "the first mail", parents[0])
    killer = Killer(lambda: workers(parents) if len(killer.kills) < KILLS else [], KILL_EVERY, seed=1)
    with killer:
        while world.state("big") != "finished":
            assert time.monotonic() < deadline, installation.said()[-3_000:]
            now = samples(tidegate("metrics").out, "tidegate_deliveries")
            sent = {key[1]: int(value) for key, value in now.items()}
            assert sent.get("sent", 0) >= sent_before["sent"], "what was sent stays sent"
            sent_before = Counter(sent)
            pause.wait(0.5)
    assert killer.kills

    def counted() -> bool:
        shown = samples(tidegate("metrics").out, "tidegate_deliveries")
        return sum(shown.values()) == 2 * USERS and set(shown) == {("email", "sent", "shop")}

    installation.until(counted, "the final tally")
    report = tidegate("campaign", "report", "big", "--json").document
    told = tidegate("metrics").out
    in_files = len(list(files.iterdir()))
    keys = Counter(mail.key for mail in world.mails())
    shown = samples(told, "tidegate_deliveries")["email", "sent", "shop"]
    assert shown == in_files == len(keys) == 2 * USERS, "nobody got a mail twice, nobody none"
    assert sum(message["sent"] for message in report["messages"].values()) == shown
    assert samples(told, "tidegate_enrolments")["exited", "shop"] == USERS
    assert samples(told, "tidegate_unfit_campaigns")[()] == 0
    for parent in (*parents, suspects):
        installation.end(parent)
