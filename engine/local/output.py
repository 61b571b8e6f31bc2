"""The output of many processes as one stream: whole lines, each with the time and a coloured name before it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, TextIO

_COLOURS: Final = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_LONGEST: Final = 64 * 1024  # bytes of a line without an end that are held back
_SYSTEM: Final = "tidegate"


class Output:
    """Writes lines of the processes called `names` to `stream`, in colour if it is a terminal and NO_COLOR is unset."""

    def __init__(self, stream: TextIO, names: Sequence[str], *, now: Callable[[], datetime]) -> None:
        self._stream = stream
        self._now = now
        self._width = max(map(len, [*names, _SYSTEM]))
        self._coloured = stream.isatty() and not os.environ.get("NO_COLOR")
        self._colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
        self._rest: dict[str, bytes] = {}

    def feed(self, name: str, chunk: bytes) -> None:
        """Bytes that the process `name` wrote; its whole lines are written on, the rest waits for its end."""
        *lines, rest = (self._rest.get(name, b"") + chunk).split(b"\n")
        if len(rest) > _LONGEST:
            lines, rest = [*lines, rest], b""
        self._rest[name] = rest
        self._write(name, lines)

    def finish(self, name: str) -> None:
        """The process `name` writes no more: what is left of its last line is written."""
        if rest := self._rest.pop(name, b""):
            self._write(name, [rest])

    def say(self, text: str) -> None:
        """A line of our own."""
        self._write(_SYSTEM, [text.encode()])

    def _write(self, name: str, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        prefix = f"{self._now():%H:%M:%S} {name.ljust(self._width)} | "
        if self._coloured:
            prefix = f"\x1b[{self._colours.get(name, 37)}m{prefix}\x1b[0m"
        shown = (line.decode("utf-8", "replace").rstrip("\r") for line in lines)
        self._stream.write("".join(f"{prefix}{line}\n" for line in shown))
        self._stream.flush()
