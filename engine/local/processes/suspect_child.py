"""The child process of `tidegate run` that serves the suspects: its death does not affect the other lanes.

It is forked, not started anew: a process that is killed often would spend its life importing, and its suspects would
wait for ever. A nursery process makes the fork. The nursery is itself forked before any thread exists, because forking
a process with threads can leave its locks held. The nursery ends its child and itself when the pipe from its parent
closes, so a killed parent leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final, NoReturn

BACKOFF: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds before the child is forked again after its first, second, ... death in a row."""

HEALTHY: Final = 30.0
"""Seconds of life after which a death counts as the first again."""

LOOK_EVERY: Final = 0.05
"""Seconds between two checks of the pipe and of the child."""


class Nursery:
    """Forks a child that runs `work` with the variables from `start`, and forks it again whenever it dies.

    Create it while the process has only one thread. `patience` is the time that a child has to end after TERM.
    """

    def __init__(self, work: Callable[[Mapping[str, str]], None], patience: timedelta) -> None:
        reading, self._writing = os.pipe()
        self._patience = patience.total_seconds()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._writing)
            self._rear(reading, work)
        os.close(reading)

    def start(self, variables: Mapping[str, str]) -> None:
        """Have the child forked; `variables` are added to its environment."""
        os.write(self._writing, json.dumps(dict(variables)).encode() + b"\n")

    def stop(self) -> None:
        """End child and nursery; safe to call twice."""
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1
            os.waitpid(self._pid, 0)

    def _rear(self, reading: int, work: Callable[[Mapping[str, str]], None]) -> NoReturn:
        """Run the nursery: wait for the variables, keep a child, end with the parent."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # these reach the whole group; the parent decides when to end
        report = b""
        while not report.endswith(b"\n"):
            chunk = os.read(reading, 65_536)
            if not chunk:
                os._exit(0)
            report += chunk
        variables, deaths, child, born, due = json.loads(report), 0, 0, 0.0, 0.0
        while not _closed(reading):
            now = time.monotonic()
            if child and os.waitpid(child, os.WNOHANG)[0]:
                deaths = 0 if now - born > HEALTHY else deaths
                child, due = 0, now + BACKOFF[min(deaths, len(BACKOFF) - 1)]
                deaths += 1
            if not child and now >= due:
                child, born = _fork(reading, work, variables), now
        if child:
            self._end(child)
        os._exit(0)

    def _end(self, child: int) -> None:
        os.kill(child, signal.SIGTERM)
        until = time.monotonic() + self._patience
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
                until = float("inf")
            time.sleep(LOOK_EVERY)


def _closed(reading: int) -> bool:
    """Return whether the parent has closed its end; wait a moment for it."""
    ready, _, _ = select.select([reading], [], [], LOOK_EVERY)
    return bool(ready) and not os.read(reading, 1)


def _fork(reading: int, work: Callable[[Mapping[str, str]], None], variables: Mapping[str, str]) -> int:
    child = os.fork()
    if child:
        return child
    os.close(reading)
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        work(variables)
        code = 0
    finally:
        os._exit(code)
