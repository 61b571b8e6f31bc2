"""Runs the sink (`bench.sink`) in a separate process, and queries it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent


class Sink:
    """The sink's process and port."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process, self.port = process, port

    @property
    def pid(self) -> int:
        """The sink's process id, to measure it."""
        return self._process.pid

    def now(self) -> dict[str, Any]:
        """Return its counts so far (`bench.sink.Taken.counts`)."""
        return self._ask("stats")

    def compared(self, expected: Path) -> dict[str, int]:
        """Return the number of `missing` and `unexpected` recipients against a file with an address in each line."""
        return self._ask(f"missing {expected}")

    def refuse(self, reply: str) -> None:
        """Let it answer every recipient with an SMTP reply from now on; an empty one ends this."""
        self._ask(f"refuse {reply}" if reply else "accept")

    def _ask(self, order: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def taken(self) -> dict[str, Any]:
        """End the sink; return its counts."""
        output, _ = self._process.communicate(timeout=10)
        counted: dict[str, Any] = json.loads(output)
        return counted


@contextmanager
def sink(late: float = 0.0, *more: str, stepwise: bool = False) -> Iterator[Sink]:
    """Run a sink during the block; `late` is in milliseconds, `more` are flags of `bench.sink`."""
    command = [sys.executable, "-m", "bench.sink", "--late", str(late), *more, *(["--stepwise"] if stepwise else [])]
    process = subprocess.Popen(command, cwd=HERE.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    started = Sink(process, int(process.stdout.readline()))
    try:
        yield started
    finally:
        if process.poll() is None:
            process.communicate(timeout=10)
