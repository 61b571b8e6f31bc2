"""A field of a user, and the row that a compiled predicate reads."""

from __future__ import annotations

import keyword
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from engine.catalogue.values import FieldType, Shape

Kind: TypeAlias = Literal["builtin", "attribute", "aggregate"]
Summary: TypeAlias = tuple[int, int, int]
"""The summary of one event in a user document, over all stored events: count, first instant, last instant."""

_FOLDER: Final[dict[Kind, str]] = {"builtin": "", "attribute": "a.", "aggregate": "g."}
_SLUG: Final[dict[Kind, str]] = {"builtin": "u", "attribute": "a", "aggregate": "g"}
_ELASTIC: Final = {
    FieldType.STRING: "k",
    FieldType.INTEGER: "i",
    FieldType.DECIMAL: "i",
    FieldType.NUMBER: "n",
    FieldType.TIME: "t",
    FieldType.BOOLEAN: "b",
}


class Row(Protocol):
    """A user as the compiled predicate sees it; `e` holds the summaries of events.

    The struct that `row_codec` generates for a catalogue has these fields and one slot per declared field (None =
    missing).
    """

    key: str
    rev: int
    deleted: bool
    lists: tuple[str, ...]
    e: tuple[Summary | None, ...]


@dataclass(frozen=True, slots=True)
class Field(Shape):
    """A field of a user: built in, an attribute that the workspace declares, or an aggregate of events."""

    kind: Kind = "attribute"

    @property
    def mongo_path(self) -> str:
        """The path in a user document; for a string whose case is ignored, the path of its folded copy."""
        if self.case_ignored:
            return f"k.{self.name}"
        return f"{'u' if self.name == 'user_id' else _FOLDER[self.kind] + self.name}"

    @property
    def elastic_path(self) -> str:
        """The path in an indexed user: one object per type, so that workspaces cannot disagree on a mapping."""
        return f"{_ELASTIC[self.type]}.{_SLUG[self.kind]}:{self.name}"

    @property
    def slot(self) -> str:
        """The attribute of a row: the name, with `_` appended if it is a Python keyword."""
        return f"{self.name}_" if keyword.iskeyword(self.name) else self.name
