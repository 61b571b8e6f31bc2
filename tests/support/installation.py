"""A `World` with the real command line and real processes on it: what a user types, and what then runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from engine.local.processes.orphan_guard import MARK
from tests.support.pipeline_world import World

PATIENCE: Final = 60.0
"""Seconds that a fact may take on a loaded machine before a test gives up on it."""
_POLL: Final = 0.05


@dataclass(frozen=True, slots=True)
class Told:
    """What a command said: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; fails where there is another line."""
        return json.loads(self.out)


class Installation:
    """Commands and processes in the folder of a world, on its database."""

    def __init__(self, world: World, services: Any, more: Mapping[str, str]) -> None:
        self.world = world
        self.folder = world.folder
        self.env = {
            "TIDEGATE_SERVICES__MONGO_URL": services.mongo_url,
            "TIDEGATE_SERVICES__MONGO_DATABASE": world.database.name,
            "TIDEGATE_SERVICES__BROKER_URL": services.broker_url,
            "TIDEGATE_SERVICES__CACHE_URL": services.cache_url,
            **more,
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def environment(self, more: Mapping[str, str] = {}) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("TIDEGATE_")}
        programs = f"{Path(sys.executable).parent}{os.pathsep}{clean.get('PATH', '')}"
        return {**clean, "PATH": programs, "PYTHONUNBUFFERED": "1", **self.env, **more}

    def call(self, *arguments: str, **env: str) -> Told:
        """Run a command to its end, as a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "engine.cli", *arguments],
            cwd=self.folder,
            env=self.environment(env),
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
            check=False,
        )
        return Told(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
        """Start a command; its stdout and stderr go to `said()`."""
        with (self.folder / "said.txt").open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "engine.cli", *arguments],
                cwd=self.folder,
                env=self.environment(env),
                stdout=said,
                stderr=said,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def said(self) -> str:
        """What the started commands have said so far."""
        path = self.folder / "said.txt"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def running(self) -> subprocess.Popen[bytes]:
        """`tidegate run`, once its fleets serve."""
        process = self.start("run")
        self.until(lambda: "tidegate runs:" in self.said(), "the fleets", process)
        return process

    def until(self, fact: Callable[[], Any], what: str, process: subprocess.Popen[bytes] | None = None) -> Any:
        """Wait until `fact` holds, and give it; fails after `PATIENCE`, or when `process` has ended."""
        pause, deadline = threading.Event(), time.monotonic() + PATIENCE
        while not (found := fact()):
            ended = process is not None and process.poll() is not None
            assert not ended, f"it ended before {what}:\n{self.said()[-3000:]}"
            assert time.monotonic() < deadline, f"{what} never came:\n{self.said()[-3000:]}"
            pause.wait(_POLL)
        return found

    def lines(self, event: str = "", **labels: str) -> list[dict[str, Any]]:
        """The log lines of an event (every line without one) with these labels, of all processes, in order of time."""
        files = (self.folder / "var" / "logs").glob("*.ndjson")
        whole = [raw for path in files for raw in path.read_bytes().splitlines() if raw.endswith(b"}")]
        found = [json.loads(raw) for raw in whole]
        chosen = [
            line
            for line in found
            if event in ("", line["event"]["action"])
            and all(line.get("labels", {}).get(key) == value for key, value in labels.items())
        ]
        return sorted(chosen, key=lambda line: line["@timestamp"])

    def family(self, process: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """The process and everything that it started, also what has fled into a session of its own."""
        head = psutil.Process(process.pid)
        return [head, *head.children(recursive=True)]

    def ended(self, family: list[psutil.Process]) -> bool:
        """Whether none of these is left."""
        return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family)

    def end(self, process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; gives the exit code."""
        process.send_signal(number)
        return process.wait(PATIENCE)

    def close(self) -> None:
        """Kill what a failed test left."""
        for process in self._started:
            if process.poll() is None:
                for one in self.family(process):
                    if one.is_running():
                        one.kill()
                process.wait()


__all__ = ["MARK", "PATIENCE", "Installation", "Told"]
