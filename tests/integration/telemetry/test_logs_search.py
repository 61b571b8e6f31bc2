"""`tidegate logs search` and `ship` as a user calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from elasticsearch import Elasticsearch
from typer.testing import CliRunner, Result

from engine.cli import logs as command
from engine.clock import SystemClock, parse_instant
from engine.stores.search.log_index import LogIndex
from engine.telemetry import logging as telemetry
from engine.telemetry.events import emit
from engine.telemetry.log_shipper import Shipper

AS_OF = parse_instant("2017-01-15T23:59:59.999Z")
APP = typer.Typer()
command.mount(APP)

STORY = ["run.planned", "slice.claimed", "batch.decided", "slice.closed", "run.decided", "delivery.sent"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a folder of log files of a pass over two users, found by the settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEGATE_LOGS__FOLDER", str(tmp_path / "logs"))
    monkeypatch.delenv("TIDEGATE_SERVICES__ELASTIC_URL", raising=False)
    logs = telemetry.configure(telemetry.LogOptions("fast", tmp_path / "logs", console=False), clock=SystemClock())
    run = {"workspace": "grocer", "campaign": "winback", "campaign_uid": "winback-1", "as_of": AS_OF, "run": "r1"}
    emit("run.planned", **run, slices=1)
    emit("slice.claimed", **run, slice="r1/a")
    emit("batch.decided", **run, slice="r1/a", users=2, chosen=2)
    emit("slice.closed", **run, slice="r1/a", users=2)
    emit("run.decided", **run, users=2)
    sent = {key: value for key, value in run.items() if key != "as_of"} | {"slice": "r1/a", "chosen_at": AS_OF}
    for user in ("hh-1", "zoe@example.org"):
        emit("delivery.sent", **sent, user=user, message="we-miss-you", channel="email")
    emit("clock.set", campaign_time=AS_OF)
    logs.close()
    return tmp_path / "logs"


def called(*arguments: str) -> Result:
    return CliRunner().invoke(APP, ["logs", *arguments], catch_exceptions=False)


def actions(result: Result) -> list[str]:
    return [line["event"]["action"] for line in json.loads(result.stdout)]


def test_without_a_log_search_the_files_are_read_with_a_note(folder: Path) -> None:
    result = called("search", "campaign:winback user:hh-1")
    assert "delivery.sent" in result.stdout
    assert "user=hh-1" in result.stdout
    assert result.stdout.count("\n") == 1
    assert "reading the files" in result.stderr


@pytest.mark.parametrize("user", ["hh-1", "zoe@example.org"])
def test_the_story_of_a_delivery_is_read_from_the_files(folder: Path, user: str) -> None:
    result = called("search", f"campaign:winback user:{user}", "--story", "--json")
    assert actions(result) == STORY
    assert "zoe" not in result.stdout


def test_since_and_limit_narrow_a_search(folder: Path) -> None:
    assert actions(called("search", "--since", "1h", "--limit", "2", "--json")) == ["delivery.sent", "clock.set"]
    assert actions(called("search", "--since", "2099-01-01", "--json")) == []


@pytest.mark.elastic
def test_the_story_of_a_delivery_is_read_from_the_log_search(
    folder: Path,
    elastic: Elasticsearch,
    index_prefix: str,
    services: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = f"{index_prefix}logs"
    monkeypatch.setattr(LogIndex.__init__, "__kwdefaults__", {**LogIndex.__init__.__kwdefaults__, "stream": stream})
    monkeypatch.setenv("TIDEGATE_SERVICES__ELASTIC_URL", services.elastic_url)  # type: ignore[attr-defined]
    assert "nothing was shipped yet" in called("search", "user:hh-1").stderr
    assert "shipped 8 lines" in called("ship", "--once").stderr
    for path in folder.glob("*.ndjson"):
        path.unlink()
    for user in ("hh-1", "zoe@example.org"):
        result = called("search", f"campaign:winback user:{user}", "--story", "--json")
        assert actions(result) == STORY
        assert not result.stderr
    assert actions(called("search", "event:delivery.* campaign:win* message:we-miss-you", "--json")) == STORY[-1:] * 2
    assert actions(called("search", "clock", "--json")) == ["clock.set"]


@pytest.mark.elastic
def test_a_shipper_ends_within_a_second_of_its_signal(folder: Path, services: object) -> None:
    code = (
        "import sys, typer; from engine.cli import logs; from engine.stores.search.log_index import LogIndex\n"
        "app = typer.Typer(); logs.mount(app)\n"
        "LogIndex.__init__.__kwdefaults__['stream'] = sys.argv.pop()\n"
        "app()"
    )
    environment = {**os.environ, "TIDEGATE_SERVICES__ELASTIC_URL": services.elastic_url}  # type: ignore[attr-defined]
    child = subprocess.Popen([sys.executable, "-c", code, "logs", "ship", "test-logs-signal"], env=environment)
    state = folder / "ship.json"
    while not state.exists() and child.poll() is None:
        os.sched_yield()
    assert child.poll() is None
    before = SystemClock().monotonic()
    child.send_signal(signal.SIGTERM)
    assert child.wait(5) == 0
    assert (
        SystemClock().monotonic() - before < 3.0
    )  # a second, plus the time in which a loaded machine ends an interpreter
    shipper = Shipper(folder, object())  # type: ignore[arg-type]  # the lock is free again
    assert shipper.waiting() == 0
    shipper.close()
