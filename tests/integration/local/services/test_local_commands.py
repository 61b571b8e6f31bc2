"""`tidegate up`, `down` and `status` as a user types them, mounted in a separate app."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.local.services.local_services import LocalServices
from engine.process_identity import birth_of

ROOT = Path(__file__).parents[4]
APP = """
import sys, typer
from engine.cli.services import mount
from engine.errors import EngineError
app = typer.Typer()
mount(app)
try:
    sys.exit(app(standalone_mode=False))  # the code of a typer.Exit is returned
except EngineError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
except KeyboardInterrupt:
    sys.exit(130)
"""
Tidegate = Callable[..., "subprocess.Popen[str]"]
GIVEN = {"TIDEGATE_SERVICES__ELASTIC_URL": "http://127.0.0.1:9"}  # none of these tests is about Elasticsearch


@pytest.fixture
def tidegate(tmp_path: Path) -> Iterator[Tidegate]:
    """Return a function that runs a command in the folder `tmp_path`, with local services of its own."""
    (tmp_path / "app.py").write_text(APP)
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **env: str) -> subprocess.Popen[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("TIDEGATE_SERVICES")}
        command = subprocess.Popen(
            [sys.executable, "app.py", *arguments],
            cwd=tmp_path,
            env={**clean, "PYTHONPATH": str(ROOT), **GIVEN, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(command)
        return command

    yield run
    for command in started:
        if command.poll() is None:
            command.kill()
            command.communicate()
    LocalServices(tmp_path / "var").stop(everything=True, discard=True)


def until(command: subprocess.Popen[str], text: str) -> str:
    assert command.stdout is not None
    seen = []
    for line in command.stdout:
        seen.append(line)
        if text in line:
            return line
    raise AssertionError(f"{text!r} never came:\n{''.join(seen)}")


def states(tidegate: Tidegate) -> tuple[int, dict[str, str], int | None]:
    command = tidegate("status", "--json")
    output, _ = command.communicate()
    document = json.loads(output)
    return command.returncode, {row["name"]: row["state"] for row in document["services"]}, document["up"]


def test_up_starts_services_and_processes_and_down_ends_them_all(tidegate: Tidegate, tmp_path: Path) -> None:
    web = "printenv | grep TIDEGATE_SERVICES | sort; echo set; exec sleep 1000"
    (tmp_path / "Procfile").write_text(f"web: {web}\nother: sleep 1000\nexits: exit 3\n")
    up = tidegate("up")
    urls = [until(up, "TIDEGATE_SERVICES__").partition("| ")[2].partition("=") for _ in range(4)]
    addresses = {name: url.strip() for name, _, url in urls}
    until(up, "set")
    until(up, "exits starts again")
    code, running, pid = states(tidegate)
    assert code == 1, "one process does not run"
    assert running == {"mongo": "running", "broker": "running", "cache": "running", "elastic": "given"}
    assert pid == up.pid
    recorded = LocalServices(tmp_path / "var").running()
    assert addresses == {**recorded.environment(), **GIVEN}

    document = json.loads(tidegate("status", "--json").communicate()[0])
    web_now, other, exits = document["processes"]
    assert [(item["state"], item["restarts"]) for item in (web_now, other)] == [("running", 0), ("running", 0)]
    assert (exits["name"], exits["last_exit"]) == ("exits", "with code 3")
    assert exits["state"] in {"restarting", "failing"}
    assert other["since"].startswith("20")

    broker = next(row["pid"] for row in document["services"] if row["name"] == "broker")
    os.kill(broker, signal.SIGKILL)
    until(up, f"broker (pid {broker}) died; it starts again in 0.25 s")
    until(up, "broker runs again")
    result = tidegate("status").communicate()[0]
    line = next(line for line in result.splitlines() if line.startswith("broker"))
    assert line.split()[1] == "running"
    assert line.split()[-3:] == ["1", "by", "SIGKILL"]
    assert f"tidegate up runs (pid {up.pid})" in result

    second = tidegate("up")
    assert "already runs" in second.communicate()[0]
    assert second.returncode == 2

    down = tidegate("down")
    assert down.communicate()[0] == f"ended tidegate up (pid {up.pid}), mongo, broker, cache\n"
    up.communicate()
    assert (down.returncode, up.returncode) == (0, 0)
    code, ended, pid = states(tidegate)
    assert code == 3
    assert set(ended.values()) == {"ended", "given"}
    assert pid is None
    assert "nothing runs" in tidegate("status").communicate()[0]
    assert tidegate("down").communicate()[0] == "nothing runs for var\n"


def test_ctrl_c_ends_up_with_its_services(tidegate: Tidegate, tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: sh -c 'echo $WORD $TIDEGATE_ENGINE__TICK; exec sleep 1000'\n")
    (tmp_path / ".env").write_text("WORD=from-the-file\nTIDEGATE_ENGINE__TICK=1s\n")
    up = tidegate("up", "--scale", "web=2", "--log-format", "json")
    said = [json.loads(until(up, text)) for text in ("starting mongo", "mails go to", "web.2 started", "from-the-file")]
    assert said[3]["message"] == "from-the-file 1s", "what .env says is handed on"
    assert [line["labels"]["process"] for line in said][:3] == ["tidegate"] * 3
    before = LocalServices(tmp_path / "var").status()
    up.send_signal(signal.SIGINT)
    up.communicate()
    assert up.returncode == 130
    assert [service.name for service in before if service.pid and birth_of(service.pid)] == []


def test_detached_services_run_until_down(tidegate: Tidegate) -> None:
    up = tidegate("up", "--services-only", "--detach")
    up.communicate()
    assert up.returncode == 0
    assert states(tidegate)[1]["mongo"] == "running"
    down = tidegate("down")
    assert down.communicate()[0] == "ended mongo, broker, cache\n"
    assert states(tidegate)[1]["mongo"] == "ended"


def test_services_only_waits_for_term(tidegate: Tidegate) -> None:
    up = tidegate("up", "--services-only")
    until(up, "running")
    assert states(tidegate)[2] == up.pid
    up.terminate()
    up.communicate()
    assert up.returncode == 0
    assert states(tidegate)[1]["mongo"] == "ended"


def test_given_addresses_are_shown_without_their_password(tidegate: Tidegate) -> None:
    env = {
        "TIDEGATE_SERVICES__BROKER_URL": "rediss://user:secret@broker.example:6380/0",
        "TIDEGATE_SERVICES__CACHE_URL": "rediss://user:secret@cache.example:6380/0",
        "TIDEGATE_SERVICES__MONGO_URL": "mongodb+srv://user:secret@db.example/",
    }
    command = tidegate("status", **env)
    output, _ = command.communicate()
    assert command.returncode == 3, "nobody answers there"
    assert "secret" not in output
    assert output.count("given, does not answer") == 3, output  # only the driver can judge an address by DNS
    assert "rediss://***@broker.example:6380/0" in output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--scale", "slwo=2"], "no process type 'slwo'"),
        (["--scale", "slow=many"], "expected a whole number, got 'many'"),
        (["--procfile", "Procfiel"], "Procfiel: No such file"),
        (["--stop-timeout", "slow=2"], "expected a duration"),
        (["--detach"], "--detach needs --services-only"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_starts(
    tidegate: Tidegate, tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    (tmp_path / "Procfile").write_text("slow: sleep 1000\n")
    up = tidegate("up", *arguments)
    assert complaint in up.communicate()[0]
    assert up.returncode == 2
    assert not (tmp_path / "var").exists()
