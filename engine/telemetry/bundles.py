"""Bundles: lines in a row that differ in few places are one document of the log search, and one sentence on a screen.

A window of deliveries leaves lines that are alike but for the user, the stay, the key and the line's own number. As one
document (`engine.domain.log_documents`) they cost the log search a small part of what they cost one by one.

Where a bundle begins and ends follows from the lines alone, so that whoever cuts them again cuts them alike: a line
that is not alike, a gap in the numbers, or a number that is a multiple of `LONGEST`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from engine.domain.log_documents import BUNDLE, DIFFERING
from engine.telemetry.query import value_of

LONGEST: Final = 200
"""Lines of one bundle: beyond that a search that wants one of them reads more than the rest saves."""
_SEQUENCE: Final = "event.sequence"


@dataclass(frozen=True, slots=True)
class Bundle:
    """Lines that are alike as they stand in the file (with their ends), and the first of them read.

    `values` are those that differ, by their paths. `open` says that the next line of the file may belong to it.
    """

    first: Mapping[str, Any]
    lines: tuple[bytes, ...]
    values: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    open: bool = False

    def document(self) -> bytes:
        """The one document that these lines are in the log search, as JSON."""
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
    """What lines that are alike share: the text before their number, after it, and after each value that differs."""

    before: bytes
    after: bytes
    rest: tuple[bytes, ...]
    paths: tuple[str, ...]

    def values(self, raw: bytes, number: int) -> list[bytes] | None:
        """The values of the line `raw` where it has this shape and this number."""
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
    """The lines of a bundle that is being made; without a shape it stays with its first."""

    first: Mapping[str, Any]
    lines: list[bytes]
    shape: _Shape | None = None
    number: int = 0
    values: list[list[bytes]] = field(default_factory=list)

    def takes(self, raw: bytes) -> bool:
        """Add `raw` where it is the next line of this run, and say whether it was."""
        number = self.number + 1
        if self.shape is None or number % LONGEST == 0 or (values := self.shape.values(raw, number)) is None:
            return False
        self.lines.append(raw)
        self.values.append(values)
        self.number = number
        return True

    def bundle(self, *, last: bool) -> Bundle:
        """These lines; `last` says that no line follows (yet)."""
        if self.shape is None:
            return Bundle(self.first, tuple(self.lines))
        values = dict(zip(self.shape.paths, zip(*self.values, strict=True), strict=True))
        return Bundle(self.first, tuple(self.lines), values, open=last and (self.number + 1) % LONGEST != 0)


def bundled(lines: Sequence[bytes]) -> Iterator[Bundle | bytes]:
    """The bundles of lines in a row (a line alone is a bundle, too), in their order; what is no line, as it stands."""
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
    """A run of which `raw` is the first line; None where that is no line of ours."""
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
    """The shape of the lines alike to `line`, which stands as `raw`; None where nothing tells its places."""
    places = [(b'"sequence":', b"%d" % number, "")]
    for path in DIFFERING:
        value = value_of(line, path)
        if isinstance(value, str):
            places.append((b'"%b":"' % path.split(".")[1].encode(), value.encode() + b'"', path))
    if any(raw.count(name + value) != 1 for name, value, _ in places):
        return None
    spots = sorted((raw.index(name + value) + len(name), len(value), path) for name, value, path in places)
    if len(spots) == 1 or spots[0][2]:  # nobody it is about; or a number that comes later, as in no line of ours
        return None
    ends = [spot for spot, _, _ in spots[1:]] + [len(raw)]
    texts = [raw[spot + length - 1 : end] for (spot, length, _), end in zip(spots[1:], ends[1:], strict=True)]
    first = spots[0][0]
    return _Shape(
        raw[:first], raw[first + spots[0][1] : ends[0]], tuple(texts), tuple(path for _, _, path in spots[1:])
    )


def _plain(values: list[bytes]) -> bool:
    """Whether the values (without `"`) stand in JSON as they are: a line with them is JSON where one with others is."""
    try:
        joined = b" ".join(values).decode()
    except UnicodeDecodeError:
        return False
    return "\\" not in joined and joined.isprintable()
