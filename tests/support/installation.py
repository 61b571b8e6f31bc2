"""Run the real command line and real processes on a `World`."""

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
"""Seconds that a test waits for a condition; long enough for a loaded machine."""
_POLL: Final = 0.05


@dataclass(frozen=True, slots=True)
class Told:
    """The result of a command: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Parse stdout as one JSON document; raises if it holds anything else."""
        return json.loads(self.out)


class Installation:
    """Run commands and processes in the folder of a world, on its database."""

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
        """Run a command in a process of its own until it ends."""
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
        """Start a command; `said()` returns its stdout and stderr."""
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
        """Return the output of the started commands so far."""
        path = self.folder / "said.txt"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def running(self) -> subprocess.Popen[bytes]:
        """Start `tidegate run` and return it once its fleets serve."""
        process = self.start("run")
        self.until(lambda: "tidegate runs:" in self.said(), "the fleets", process)
        return process

    def until(self, fact: Callable[[], Any], what: str, process: subprocess.Popen[bytes] | None = None) -> Any:
        """Wait until `fact()` is true and return its value; fail after `PATIENCE`, or if `process` has ended."""
        pause, deadline = threading.Event(), time.monotonic() + PATIENCE
        while not (value := fact()):
            ended = process is not None and process.poll() is not None
            assert not ended, f"it ended before {what}:\n{self.said()[-3000:]}"
            assert time.monotonic() < deadline, f"{what} never came:\n{self.said()[-3000:]}"
            pause.wait(_POLL)
        return value

    def lines(self, event: str = "", **labels: str) -> list[dict[str, Any]]:
        """Return all processes' log lines with this event (if one is given) and these labels, in order of time."""
        files = (self.folder / "var" / "logs").glob("*.ndjson")
        whole = [raw for path in files for raw in path.read_bytes().splitlines() if raw.endswith(b"}")]
        lines = [json.loads(raw) for raw in whole]
        chosen = [
            line
            for line in lines
            if event in ("", line["event"]["action"])
            and all(line.get("labels", {}).get(key) == value for key, value in labels.items())
        ]
        return sorted(chosen, key=lambda line: line["@timestamp"])

    def family(self, process: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """Return the process and all its descendants, including those in a session of their own."""
        head = psutil.Process(process.pid)
        return [head, *head.children(recursive=True)]

    def ended(self, family: list[psutil.Process]) -> bool:
        """Return whether none of these processes runs any more."""
        return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family)

    def end(self, process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the process to end, and return the exit code."""
        process.send_signal(number)
        return process.wait(PATIENCE)

    def close(self) -> None:
        """Kill the processes that a failed test left."""
        for process in self._started:
            if process.poll() is None:
                for worker in self.family(process):
                    if worker.is_running():
                        worker.kill()
                process.wait()


__all__ = ["MARK", "PATIENCE", "Installation", "Told"]
