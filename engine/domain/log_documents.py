"""Documents of the log search: one log line each, or a bundle of similar lines in one document.

In a bundle, a field whose value differs between the lines holds the list of the values, in the order of the lines. A
search by one user, enrolment or key therefore finds the bundle. `bundle.lines` is the number of lines.
`event.sequence` is the number of the first line; each further line has the next number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

BUNDLE: Final = "bundle"
DIFFERING: Final = frozenset({"labels.user", "labels.entry", "labels.key", "tidegate.user_hash"})
"""Fields that may differ between the lines of a bundle, apart from `event.sequence`; all of them are texts."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document for the log search: one line, or a bundle of `lines` lines; `raw` is JSON."""

    id: str
    raw: bytes
    lines: int = 1


@dataclass(frozen=True, slots=True)
class Taken:
    """The documents that the log search did not simply accept, by id.

    `refused` maps a document that can never be accepted to the reason. `short` maps a document that an earlier try
    stored with fewer lines than this try gave to that smaller number of lines.
    """

    refused: Mapping[str, str] = field(default_factory=dict)
    short: Mapping[str, int] = field(default_factory=dict)


def lines_in(document: Mapping[str, Any]) -> int:
    """Return the number of lines in a document."""
    bundle = document.get(BUNDLE)
    return int(bundle["lines"]) if isinstance(bundle, Mapping) else 1


def unbundled(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the lines of a document, newest first."""
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
