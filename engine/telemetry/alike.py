"""Lines of one event that differ in few places: what they share is rendered once, and only the rest for each.

The text is that of the general way (`engine.telemetry.ecs.ecs_lines`), of which the pattern is made; whatever that
way would redact or escape is left to it.
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
"""Stands for a line's number in the pattern: no line has it."""
_HASH: Final = "user_hash"


class Alike:
    """The pattern of the lines that share `made` and whose rows have the labels `names`."""

    def __init__(self, template: str, order: Sequence[str], redactor: Redactor) -> None:
        """Use `of`."""
        self._template, self._order, self._redactor = template, order, redactor

    @classmethod
    def of(cls, made: Mapping[str, Any], names: Sequence[str], redactor: Redactor) -> Self | None:
        """The pattern; None where its places cannot be told apart from what the lines share."""
        marks = {name: _MARK.format(name) for name in names}
        (line,) = ecs_lines(made, [marks], redactor, iter((_SEQUENCE,)))
        try:
            text = orjson.dumps(line).decode()
        except TypeError:  # the general way knows what to do
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
        """The lines of `rows`, with line ends between them; None where a value is to be redacted or escaped."""
        columns: dict[str, Sequence[object]] = {"": numbers}
        for name in rows[0]:
            values = [row[name] for row in rows]
            try:
                joined = " ".join(values)  # type: ignore[arg-type] # what is no text raises
            except TypeError:
                return None
            # A user with a slash may be a key of one.
            if not _as_it_is(joined) or not self._redactor.leaves(joined) or (name == "user" and "/" in joined):
                return None
            columns[name] = values
        if "user" in columns:
            columns[_HASH] = list(map(layout_hash, columns["user"]))  # type: ignore[arg-type] # texts: joined above
        differing = zip(*(columns[name] for name in self._order), strict=True)
        return "\n".join(map(self._template.__mod__, differing)).encode()


def _as_it_is(text: str) -> bool:
    """Whether JSON writes `text` as it stands."""
    return text.isprintable() and '"' not in text and "\\" not in text
