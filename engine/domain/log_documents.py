"""Documents of the log search: a line each, or several lines that are alike in one (a bundle), and as lines again.

In a bundle a value that differs stands as a list in the order of the lines, `event.sequence` is the first line's (the
others count on from there), and `bundle.lines` is how many there are. So a search by a user, a stay or a key finds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

BUNDLE: Final = "bundle"
DIFFERING: Final = frozenset({"labels.user", "labels.entry", "labels.key", "tidegate.user_hash"})
"""What may differ between lines that are alike, beside `event.sequence`; all of them texts."""


@dataclass(frozen=True, slots=True)
class Document:
    """What goes to the log search under one id: one line, or `lines` that are alike; `raw` is JSON."""

    id: str
    raw: bytes
    lines: int = 1


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of documents that were not simply taken, by id.

    `refused` can never be taken, for a reason; of `short` fewer lines are there, from an earlier try, than were given.
    """

    refused: Mapping[str, str] = field(default_factory=dict)
    short: Mapping[str, int] = field(default_factory=dict)


def lines_in(document: Mapping[str, Any]) -> int:
    """How many lines a document is."""
    told = document.get(BUNDLE)
    return int(told["lines"]) if isinstance(told, Mapping) else 1


def unbundled(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The lines of a document, newest first."""
    if BUNDLE not in document:
        yield document
        return
    shared = {name: value for name, value in document.items() if name != BUNDLE}
    for place in range(lines_in(document) - 1, -1, -1):
        line = shared | {part: dict(shared[part]) for part in ("event", "labels", "tidegate") if part in shared}
        line["event"]["sequence"] += place
        for path in DIFFERING:
            part, name = path.split(".")
            value = line.get(part, {}).get(name)
            if isinstance(value, list):
                line[part][name] = value[place]
        yield line
