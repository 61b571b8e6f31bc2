"""Bundles consecutive lines that differ in few places: one document of the log search, and one sentence on a screen.

A window of deliveries leaves lines that are alike except for user, enrolment, key and line number. As one document
(`engine.domain.log_documents`) they cost the log search a small part of what single documents cost.

The lines alone determine the ends of a bundle, so cutting again gives the same bundles. A bundle ends before a line
that is not alike, before a gap in the numbers, and before a number that is a multiple of `LONGEST`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from engine.domain.log_documents import BUNDLE, DIFFERING
from engine.telemetry.log_query import value_of

LONGEST: Final = 200
"""Lines of one bundle: in a longer one, a search for one line reads more than bundling saves."""
_SEQUENCE: Final = "event.sequence"


@dataclass(frozen=True, slots=True)
class Bundle:
    """Consecutive similar lines as the file holds them (with their line ends), and the first of them parsed.

    `values` holds the values that differ, by their paths. `open` means that the next line of the file may belong to it.
    """

    first: Mapping[str, Any]
    lines: tuple[bytes, ...]
    values: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    open: bool = False

    def document(self) -> bytes:
        """Return the lines as one document of the log search, in JSON."""
        if len(self.lines) == 1:
            return self.lines[0].rstrip(b"\n")
        document: dict[str, Any] = {**self.first, BUNDLE: {"lines": len(self.lines)}}
        for path, column in self.values.items():
            if len(set(column)) > 1:
                part, name = path.split(".")
                document[part] = {**document[part], name: list(map(bytes.decode, column))}
        return orjson.dumps(document)


@dataclass(frozen=True, slots=True)
class _Shape:
    """The shared text of similar lines: before their number, after it, and after each value that differs."""

    before: bytes
    after: bytes
    rest: tuple[bytes, ...]
    paths: tuple[str, ...]

    def values(self, raw: bytes, number: int) -> list[bytes] | None:
        """Return the values of the line `raw` if it has this shape and this number, else None."""
        start = b"%b%d%b" % (self.before, number, self.after)
        if not raw.startswith(start):
            return None
        at, values = len(start), []
        for text in self.rest:
            end = raw.find(b'"', at)
            if not raw.startswith(text, end):
                return None
            values.append(raw[at:end])
            at = end + len(text)
        return values if at == len(raw) and _plain(values) else None


@dataclass(slots=True)
class _Run:
    """The lines of a bundle under construction; without a shape it holds only its first line."""

    first: Mapping[str, Any]
    lines: list[bytes]
    shape: _Shape | None = None
    number: int = 0
    values: list[list[bytes]] = field(default_factory=list)

    def takes(self, raw: bytes) -> bool:
        """Add `raw` if it is the next line of this run; return whether it was added."""
        number = self.number + 1
        if self.shape is None or number % LONGEST == 0 or (values := self.shape.values(raw, number)) is None:
            return False
        self.lines.append(raw)
        self.values.append(values)
        self.number = number
        return True

    def bundle(self, *, last: bool) -> Bundle:
        """Return these lines as a bundle; `last` means that no line follows (yet)."""
        if self.shape is None:
            return Bundle(self.first, tuple(self.lines))
        values = dict(zip(self.shape.paths, zip(*self.values, strict=True), strict=True))
        return Bundle(self.first, tuple(self.lines), values, open=last and (self.number + 1) % LONGEST != 0)


def bundled(lines: Sequence[bytes]) -> Iterator[Bundle | bytes]:
    """Yield the bundles of consecutive lines in order (also of single lines).

    Yield bytes that are no log line unchanged.
    """
    run: _Run | None = None
    for raw in lines:
        if run is not None:
            if run.takes(raw):
                continue
            yield run.bundle(last=False)
        run = _begun(raw)
        if run is None:
            yield raw
    if run is not None:
        yield run.bundle(last=True)


def _begun(raw: bytes) -> _Run | None:
    """Return a run that starts with `raw`; None if `raw` is no log line of the engine."""
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(line, dict) or "@timestamp" not in line or not raw.endswith(b"\n"):
        return None
    number = value_of(line, _SEQUENCE)
    if not isinstance(number, int) or BUNDLE in line:
        return _Run(line, [raw])
    shape = _shape(line, raw, number)
    values = None if shape is None else shape.values(raw, number)
    return _Run(line, [raw]) if values is None else _Run(line, [raw], shape, number, [values])


def _shape(line: Mapping[str, Any], raw: bytes, number: int) -> _Shape | None:
    """Return the shape of lines similar to `line` (`raw` in the file).

    None if its values cannot be located uniquely.
    """
    places = [(b'"sequence":', b"%d" % number, "")]
    for path in DIFFERING:
        value = value_of(line, path)
        if isinstance(value, str):
            places.append((b'"%b":"' % path.split(".")[1].encode(), value.encode() + b'"', path))
    if any(raw.count(name + value) != 1 for name, value, _ in places):
        return None
    spots = sorted((raw.index(name + value) + len(name), len(value), path) for name, value, path in places)
    if len(spots) == 1 or spots[0][2]:  # no value differs, or the number comes later, as in no line of ours
        return None
    ends = [spot for spot, _, _ in spots[1:]] + [len(raw)]
    texts = [raw[spot + length - 1 : end] for (spot, length, _), end in zip(spots[1:], ends[1:], strict=True)]
    first = spots[0][0]
    return _Shape(
        raw[:first], raw[first + spots[0][1] : ends[0]], tuple(texts), tuple(path for _, _, path in spots[1:])
    )


def _plain(values: list[bytes]) -> bool:
    """Return whether JSON writes the values (which hold no `"`) unchanged.

    A line with such values is valid JSON if another line of its shape is.
    """
    try:
        joined = b" ".join(values).decode()
    except UnicodeDecodeError:
        return False
    return "\\" not in joined and joined.isprintable()
