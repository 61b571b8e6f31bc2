"""Records the process that runs the engine for a folder: one at a time, findable by `down`, recognised after a kill."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from engine.errors import OperatorError, WrongCall
from engine.local.processes.process_groups import POLL
from engine.process_identity import Born, myself


class InstanceLock:
    """The runner of the folder `var`, recorded in its file `up.json`."""

    def __init__(self, var: Path) -> None:
        self._path = var / "up.json"

    @contextmanager
    def held(self, command: str = "tidegate up") -> Iterator[None]:
        """Be the runner inside the block, as this command. Raises `WrongCall` if another runner is active."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_name(".up.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as taken:
                runner = self.runner()
                who = f" (pid {runner.pid})" if runner else ""
                message = f"{self.command()} already runs for {self._path.parent}{who}"
                raise WrongCall(message, remedy="`tidegate down` ends it; or set another paths.var") from taken
            self._path.write_text(json.dumps({**asdict(myself()), "command": command}), encoding="utf-8")
            try:
                yield
            finally:
                self._path.unlink(missing_ok=True)

    def runner(self) -> Born | None:
        """Return the process that runs the engine now; None if there is none or it was killed."""
        record = self._read()
        try:
            born = Born(int(record["pid"]), record["birth"])
        except (ValueError, KeyError):
            return None
        return born if born.alive else None

    def command(self) -> str:
        """Return the command of the runner."""
        return self._read().get("command", "tidegate up")

    def _read(self) -> dict[str, str]:
        try:
            record = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {key: str(value) for key, value in record.items()} if isinstance(record, dict) else {}

    def end(self, patience: timedelta) -> bool:
        """Send the runner a TERM and wait; after `patience` send a second one, which kills. Return False if none ran.

        Raises `OperatorError` if the runner survives that too.
        """
        runner = self.runner()
        if runner is None:
            return False
        for _ in range(2):
            with suppress(ProcessLookupError):
                os.kill(runner.pid, signal.SIGTERM)
            deadline = time.monotonic() + patience.total_seconds()
            while runner.alive and time.monotonic() < deadline:
                time.sleep(POLL.total_seconds())
            if not runner.alive:
                return True
        raise OperatorError(
            f"{self.command()} (pid {runner.pid}) does not end", remedy=f"end it yourself: kill -KILL {runner.pid}"
        )
