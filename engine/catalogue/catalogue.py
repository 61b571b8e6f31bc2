"""The field catalogue of one workspace: which fields, events and aggregates exist, their types and their paths.

There is one catalogue, one language, and one compiler per target. This module is the only source for the path and the
type of a field.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import msgspec

from engine.catalogue.fields import Field, Row
from engine.catalogue.row_codec import build_row, build_row_type
from engine.catalogue.value_parsing import parse_value
from engine.catalogue.values import FieldType, Shape, Value, fold


@dataclass(frozen=True, slots=True)
class Property(Shape):
    """A property of an event."""


@dataclass(frozen=True, slots=True)
class EventType:
    """An event that the workspace declares, with its properties by name."""

    name: str
    properties: Mapping[str, Property]

    def mongo_path(self, part: Literal["n", "first", "last"]) -> str:
        """Return the path of a part of its summary in a user document."""
        return f"e.{self.name}.{part}"

    def elastic_path(self, part: Literal["n", "first", "last"]) -> str:
        """Return the path of a part of its summary in an indexed user."""
        return f"{'i' if part == 'n' else 't'}.e:{self.name}:{part}"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A field derived from stored events: their count, the first or last instant, or the sum of a property."""

    name: str
    event: str
    kind: Literal["count", "first", "last", "sum"]
    property: str | None = None


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender of the workspace's messages; `reply_to` and `envelope_from` are addresses, or empty."""

    name: str
    address: str
    reply_to: str = ""
    envelope_from: str = ""


BUILTINS: Final[Mapping[str, Field]] = {
    built.name: built
    for built in (
        Field("user_id", FieldType.STRING, kind="builtin"),
        Field("email", FieldType.STRING, kind="builtin"),
        Field("first_name", FieldType.STRING, kind="builtin"),
        Field("last_name", FieldType.STRING, kind="builtin"),
        Field("unsubscribed", FieldType.BOOLEAN, kind="builtin"),
        Field("timezone", FieldType.STRING, kind="builtin"),
        Field("created_at", FieldType.TIME, kind="builtin"),
    )
}
"""The fields that every user has, besides those that the workspace declares."""


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The declarations of one workspace. `fields` holds built-in fields, attributes and aggregates by name.

    `locale` and `currency` apply to users who have none of their own; `templates` is the folder of its layouts and
    snippets.
    """

    workspace: str
    timezone: str
    sender: Sender | None
    fields: Mapping[str, Field]
    events: Mapping[str, EventType] = field(default_factory=dict)
    aggregates: Mapping[str, Aggregate] = field(default_factory=dict)
    locale: str = "en"
    currency: str = ""
    templates: Path | None = None

    @cached_property
    def event_places(self) -> Mapping[str, int]:
        """The position of each event's summary in `row.e`."""
        return {name: place for place, name in enumerate(self.events)}

    @cached_property
    def row_type(self) -> type[msgspec.Struct]:
        """The generated struct of a user: key, rev, deleted, lists, e, then one slot per field in catalogue order."""
        return build_row_type(self)

    @cached_property
    def row(self) -> Callable[[Mapping[str, object]], Row]:
        """A function from a user document (at least the `projection`) to a row; wrong types read as None."""
        return build_row(self)

    def projection(
        self, fields: Collection[str] | None = None, events: Collection[str] | None = None
    ) -> dict[str, int]:
        """Return the MongoDB projection that `row` needs; only for some fields and events, if given."""
        names = self.fields if fields is None else [name for name in self.fields if name in fields]
        named = self.events if events is None else [name for name in self.events if name in events]
        paths = [
            "rev",
            "deleted",
            "lists",
            *(self.fields[name].mongo_path for name in names),
            *(f"e.{n}" for n in named),
        ]
        return dict.fromkeys(paths, 1)

    def folded(self, attributes: Mapping[str, object]) -> dict[str, object]:
        """Return the `k` part of a user document for its `a` part: folded copies of the case-insensitive strings."""
        copies: dict[str, object] = {}
        for name, value in attributes.items():
            declared = self.fields.get(name)
            if declared is None or not declared.case_ignored:
                continue
            if isinstance(value, str):
                copies[name] = fold(value)
            elif isinstance(value, (list, tuple)):
                copies[name] = [fold(item) for item in value if isinstance(item, str)]
        return copies

    @staticmethod
    def parse_value(shape: Shape, raw: object) -> Value | list[Value] | None:
        """Read raw input as a value of a field or property, ready to store.

        Raises `ValueError`; see `value_parsing`.
        """
        return parse_value(shape, raw)
