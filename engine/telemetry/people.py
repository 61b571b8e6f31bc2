"""Formats a log line for people: its level, its event with a sentence, its labels and measurements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from engine.telemetry.contract import EVENTS

ALIKE: Final = "alike"
"""Field of a printed line: the number of lines that it represents, itself included."""
_LEVEL: Final = 8
"""Columns for the level: the longest is `critical`."""
_KNOWN: Final = frozenset({"campaign_uid", "process"})
"""Labels that people need not see: the process is printed before the line, the campaign's name beside its uid."""


def sentence(line: Mapping[str, Any]) -> str:
    """Return e.g. `info     worker.started: A process is up and serves its lanes.

    threads=4` for a line of the log files.
    """
    level, name = str(line.get("log.level", "info")), str(line.get("message", ""))
    event = line.get("event")
    action = event.get("action") if isinstance(event, Mapping) else None
    kind = EVENTS.get(str(action))
    text = f"{name}: {kind.meaning}" if kind is not None and name == action else name
    return " ".join([level.ljust(_LEVEL), text, *(f"{key}={value}" for key, value in details(line).items())])


def details(line: Mapping[str, Any]) -> dict[str, object]:
    """Return the labels and measurements of a line, its duration and its error."""
    shown: dict[str, object] = {}
    for part in ("labels", "tidegate"):
        inside = line.get(part)
        if isinstance(inside, Mapping):
            shown |= {str(key): value for key, value in inside.items() if key not in _KNOWN}
    event, error = line.get("event"), line.get("error")
    if isinstance(event, Mapping) and isinstance(event.get("duration"), int):
        shown["took"] = f"{event['duration'] / 1e6:.1f}ms"
    if isinstance(error, Mapping):
        shown["error"] = f"{error.get('type')}: {error.get('message')}"
    return shown
