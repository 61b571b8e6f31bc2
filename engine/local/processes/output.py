"""Merges the output of many processes: whole lines, each with the time and a coloured name, or as JSON."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TextIO

from engine.telemetry.bundles import Bundle, bundled
from engine.telemetry.people import ALIKE, sentence

_COLOURS: Final = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_LONGEST: Final = 64 * 1024  # bytes of an unfinished line that are held back
_SYSTEM: Final = "tidegate"
_ALIKE: Final = re.compile(rb'"%b":(\d+)}$' % ALIKE.encode(), re.MULTILINE)  # a line that represents several
_LOGGED: Final = b'{"@timestamp"'  # start of a line of our logs (`engine.telemetry.ecs`)


class Output:
    """Writes lines of the processes called `names` to `stream`, in colour if it is a terminal and NO_COLOR is unset.

    For people, a line of the logs becomes a sentence (`engine.telemetry.people`), and consecutive lines that differ in
    few places become one; any other line stays unchanged. With `as_json` every line is one JSON document, and a line
    that is not JSON is wrapped in one. `on_event` is called with each event of the logs, once for lines that are alike.
    """

    def __init__(
        self,
        stream: TextIO,
        names: Sequence[str],
        *,
        now: Callable[[], datetime],
        as_json: bool = False,
        on_event: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._stream = stream
        self._now = now
        self._width = max(map(len, [*names, _SYSTEM]))
        self._coloured = stream.isatty() and not os.environ.get("NO_COLOR") and not as_json
        self._colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
        self._rest: dict[str, bytes] = {}
        self._as_json = as_json
        self.on_event = on_event

    def feed(self, name: str, chunk: bytes) -> None:
        """Take bytes that the process `name` wrote: write its whole lines and keep the rest until its line ends."""
        *lines, rest = (self._rest.get(name, b"") + chunk).split(b"\n")
        if len(rest) > _LONGEST:
            lines, rest = [*lines, rest], b""
        self._rest[name] = rest
        self._write(name, lines)

    def finish(self, name: str) -> None:
        """Write the unfinished last line of the process `name`, which writes no more."""
        if rest := self._rest.pop(name, b""):
            self._write(name, [rest])

    def say(self, text: str) -> None:
        """Write a line of the supervisor itself."""
        self._write(_SYSTEM, [text.encode()])

    def _write(self, name: str, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        shown: list[str] = []
        events: list[str] = []
        for bundle in bundled([line + b"\n" for line in lines]):
            raws = bundle.lines if isinstance(bundle, Bundle) else (bundle,)
            logged = bundle.first if isinstance(bundle, Bundle) and bundle.lines[0].startswith(_LOGGED) else None
            if logged is None or self._as_json:
                texts = [raw.decode("utf-8", "replace").rstrip("\r\n") for raw in raws]
                shown += texts if logged is not None else map(self._foreign, (name,) * len(texts), texts)
            else:
                count = sum(int(match[1]) if (match := _ALIKE.search(raw)) else 1 for raw in raws)
                more = f", and {count - 1:,} more" if count > 1 else ""
                shown.append(f"{self._prefix(name)}{sentence(logged)}{more}")
            event = None if logged is None else logged.get("event")
            if isinstance(event, Mapping) and "action" in event:
                events.append(str(event["action"]))
        self._stream.write("".join(f"{line}\n" for line in shown))
        self._stream.flush()
        for action in events:
            self.on_event(name, action)

    def _prefix(self, name: str) -> str:
        prefix = f"{self._now():%H:%M:%S} {name.ljust(self._width)} | "
        return f"\x1b[{self._colours.get(name, 37)}m{prefix}\x1b[0m" if self._coloured else prefix

    def _foreign(self, name: str, text: str) -> str:
        """Format a line that is not from our logs."""
        if not self._as_json:
            return self._prefix(name) + text
        at = self._now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"@timestamp": at, "log.level": "info", "message": text, "labels": {"process": name}}
        return json.dumps(line, ensure_ascii=False)
