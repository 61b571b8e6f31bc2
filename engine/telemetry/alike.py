"""Renders log lines of one event that differ in few places: the shared text once, and the rest for each line.

The result equals that of `engine.telemetry.ecs.ecs_lines`, which renders the pattern. Lines with a value that needs
redaction or escaping are left to `ecs_lines`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import orjson

from engine.domain.keys import layout_hash
from engine.telemetry.ecs import ecs_lines
from engine.telemetry.redaction import Redactor

_MARK: Final = "~tidegate~{}~"
_SEQUENCE: Final = -7_316_205_918_340_277_415
"""Placeholder for a line's number in the pattern: no line has this number."""
_HASH: Final = "user_hash"


class Alike:
    """The pattern of lines that share `made` and whose rows have the labels `names`."""

    def __init__(self, template: str, order: Sequence[str], redactor: Redactor) -> None:
        """Use `of` instead."""
        self._template, self._order, self._redactor = template, order, redactor

    @classmethod
    def of(cls, made: Mapping[str, Any], names: Sequence[str], redactor: Redactor) -> Self | None:
        """Return the pattern; None if a placeholder does not occur exactly once in it."""
        marks = {name: _MARK.format(name) for name in names}
        (line,) = ecs_lines(made, [marks], redactor, iter((_SEQUENCE,)))
        try:
            text = orjson.dumps(line).decode()
        except TypeError:  # the caller then renders with `ecs_lines`, which handles this
            return None
        places = {name: f'"{mark}"' for name, mark in marks.items()} | {"": str(_SEQUENCE)}
        if "user" in marks:
            places[_HASH] = f'"{layout_hash(marks["user"])}"'
        if any(text.count(place) != 1 for place in places.values()):
            return None
        order = sorted(places, key=lambda name: text.index(places[name]))
        template = text.replace("%", "%%")
        for name, place in places.items():
            template = template.replace(place, '"%s"' if name else "%s")
        return cls(template, order, redactor)

    def lines(self, rows: Sequence[Mapping[str, object]], numbers: Sequence[int]) -> bytes | None:
        """Return the lines of `rows` joined by line ends; None if a value needs redaction or escaping."""
        columns: dict[str, Sequence[object]] = {"": numbers}
        for name in rows[0]:
            values = [row[name] for row in rows]
            try:
                joined = " ".join(values)  # type: ignore[arg-type]  # raises unless every value is a text
            except TypeError:
                return None
            # A user with a slash may be a user key.
            if not _as_it_is(joined) or not self._redactor.leaves(joined) or (name == "user" and "/" in joined):
                return None
            columns[name] = values
        if "user" in columns:
            columns[_HASH] = list(map(layout_hash, columns["user"]))  # type: ignore[arg-type]  # texts: joined above
        differing = zip(*(columns[name] for name in self._order), strict=True)
        return "\n".join(map(self._template.__mod__, differing)).encode()


def _as_it_is(text: str) -> bool:
    """Return whether JSON writes `text` unchanged."""
    return text.isprintable() and '"' not in text and "\\" not in text
