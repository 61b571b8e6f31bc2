"""The child process of `tidegate run` that serves the suspects: who dies there takes nobody along."""

from __future__ import annotations

import subprocess
import threading
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from engine.local.guard import MARK, start_guard
from engine.local.processes import end_groups, marked_groups

BACKOFF: Final = (0.5, 1.0, 2.0, 5.0)
"""Seconds before the child is started again after its first, second, ... death."""


class SuspectChild:
    """Keeps one child running until `stop`."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], patience: timedelta) -> None:
        self._mark = uuid.uuid4().hex
        self._command = list(command)
        self._environment = {**environment, MARK: self._mark}
        self._patience = patience
        self._ending = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="suspect-child", daemon=True)
        self._guard = start_guard(self._mark, patience)

    def start(self) -> None:
        """Start the child and watch over it."""
        self._thread.start()

    def stop(self) -> None:
        """End the child and all of its processes: TERM, and KILL after the patience."""
        self._ending.set()
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(self._patience.total_seconds())
            except subprocess.TimeoutExpired:
                end_groups(marked_groups(MARK, self._mark), patience=timedelta(0))
        self._thread.join()
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait()

    def _keep(self) -> None:
        deaths = 0
        while not self._ending.is_set():
            self._child = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, start_new_session=True
            )
            self._child.wait()
            self._ending.wait(BACKOFF[min(deaths, len(BACKOFF) - 1)])
            deaths += 1
