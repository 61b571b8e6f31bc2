"""Rows to changes, strictly by the catalogue: a row means exactly one thing, or is refused with a reason.

In a table (CSV, Parquet) an empty cell says nothing: the field stays as it is. In NDJSON a key that is not there says
nothing, and null removes the field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, TypeAlias, cast

import orjson

from engine.domain.changes import NewEvent, Stored, UserChange
from engine.domain.keys import user_key
from engine.errors import WrongCall
from engine.pipeline.importing.cells import build_reader, put
from engine.pipeline.importing.columns import (
    Layout,
    RowFaultError,
    absent,
    identifier,
    read_value,
    refuse_key,
    required,
)
from engine.predicate.fields import Catalogue, EventType, Field, FieldType, Shape
from engine.predicate.workspace import closest

Values: TypeAlias = "Sequence[Any] | Mapping[str, Any]"  # Any: what a file says, judged here

NESTED: Final = ("attributes", "traits")
EVENT_ALIASES: Final = {"event": "name", "timestamp": "time", "messageId": "id"}
USER_ALIASES: Final = {"userId": "user_id"}
_TIME: Final = Shape("time", FieldType.TIME)


class UserRows:
    """Reads rows as changes of users. Raises `WrongCall` at once for columns that the catalogue does not have."""

    def __init__(self, catalogue: Catalogue, columns: Sequence[str] | None, layout: Layout) -> None:
        self._workspace = catalogue.workspace
        self._layout = layout
        self._fields = {name: one for name, one in catalogue.fields.items() if one.kind != "aggregate"}
        self._aggregates = catalogue.aggregates
        for name in layout.defaults:
            self._known(name, "--default ")
            if name == "user_id":
                raise WrongCall("--default user_id: every row names its own user")
        if columns is None:
            return
        targets = layout.targets(columns, USER_ALIASES)
        required(targets, {}, "user_id", columns)
        places = [(at, self._known(name)) for at, name in enumerate(targets) if name not in (None, "user_id")]
        told = {name for name in targets if name is not None}
        extra = {self._known(name): text for name, text in layout.defaults.items() if name not in told}
        place = targets.index("user_id")
        self._read_cells = build_reader(catalogue.workspace, place, places, layout.defaults, extra)

    def _known(self, name: str, option: str = "") -> Field:
        known = self._fields.get(name.removeprefix("attributes.").removeprefix("traits."))
        if known is not None:
            return known
        if name in self._aggregates:
            raise WrongCall(
                f"{option}{name}: is derived from events", remedy="import the events; pass --ignore for this column"
            )
        hint = closest(name, self._fields) or "declare it in the workspace file"
        raise WrongCall(
            f"{option}{name}: the workspace has no such attribute", remedy=f"{hint} (or pass --ignore {name})"
        )

    def read(self, values: Values) -> UserChange:
        """One row. Raises `RowFaultError`."""
        if not isinstance(values, Mapping):
            return self._read_cells(values)
        fields: dict[str, Stored | None] = {}
        uid = self._read_object(values, fields)
        return UserChange(user_key(self._workspace, uid), fields)

    def _read_object(self, values: Mapping[str, Any], fields: dict[str, Stored | None]) -> str:
        uid: object = None
        told: set[str] = set()
        for key, raw in self._flat(values):
            if key == "user_id":
                uid = raw
                continue
            field = self._fields.get(key)
            if field is None:
                refuse_key(key, self._fields, "the workspace has no attribute")
            if key in told:
                raise RowFaultError(f"{key} is there twice (keep one)")
            told.add(key)
            put(fields, field, raw)
        for name, text in self._layout.defaults.items():
            if name not in told:
                put(fields, self._fields[name], text)
        return identifier(uid, "user_id")

    def _flat(self, values: Mapping[str, Any]) -> list[tuple[str, Any]]:
        pairs: list[tuple[str, Any]] = []
        for key, raw in values.items():
            if key in self._layout.ignored:
                continue
            name = self._layout.mapping.get(key, key)
            if name in NESTED and isinstance(raw, dict):
                pairs += [(self._layout.mapping.get(one, one), inner) for one, inner in raw.items()]
            elif name in USER_ALIASES and USER_ALIASES[name] not in values:
                pairs.append((USER_ALIASES[name], raw))
            else:
                pairs.append((name, raw))
        return pairs


class EventRows:
    """Reads rows as events. Raises `WrongCall` at once for columns that no event has."""

    def __init__(self, catalogue: Catalogue, columns: Sequence[str] | None, layout: Layout) -> None:
        self._workspace = catalogue.workspace
        self._events = catalogue.events
        self._layout = layout
        if not self._events:
            raise WrongCall("the workspace declares no events", remedy="add them under events: in the workspace file")
        default = layout.defaults.get("name")
        if default is not None and default not in self._events:
            raise WrongCall(
                f"--default name={default}: no such event is declared", remedy=closest(default, self._events)
            )
        self._defaults = {name.removeprefix("properties."): text for name, text in layout.defaults.items()}
        if columns is None:
            return
        targets = layout.targets(columns, EVENT_ALIASES | USER_ALIASES)
        for name in ("user_id", "time"):
            required(targets, layout.defaults, name, columns)
        if "name" not in targets and default is None:
            example = closest("", self._events) or next(iter(self._events))
            raise WrongCall(
                "the file has no column name, so which event is it?", remedy=f'pass --default name="{example}"'
            )
        self._places = {name: place for place, name in enumerate(targets) if name is not None}
        possible = [self._events[default]] if default and "name" not in targets else list(self._events.values())
        known = {name for one in possible for name in one.properties}
        self._properties: list[tuple[int, str]] = []
        for name, place in self._places.items():
            if name in ("user_id", "name", "time", "id"):
                continue
            if name.removeprefix("properties.") not in known:
                hint = closest(name, known) or "declare it in the workspace file"
                raise WrongCall(f"{name}: no event has such a property", remedy=f"{hint} (or pass --ignore {name})")
            self._properties.append((place, name.removeprefix("properties.")))

    def read(self, values: Values) -> NewEvent:
        """One row. Raises `RowFaultError`."""
        if isinstance(values, Mapping):
            told, properties = self._read_object(values)
        else:
            told = {name: values[place] for name, place in self._places.items()}
            properties = {name: values[place] for place, name in self._properties if not absent(values[place])}
        user_id = identifier(self._given(told, "user_id"), "user_id")
        name = self._given(told, "name")
        if absent(name):
            raise RowFaultError("name is missing: which event is it?")
        kind = self._events.get(name) if isinstance(name, str) else None
        if kind is None:
            hint = closest(str(name), self._events) or "declare it in the workspace file"
            raise RowFaultError(f'no event "{str(name)[:60]}" is declared ({hint})')
        when = self._given(told, "time")
        if absent(when):
            raise RowFaultError("time is missing")
        at = cast("int", read_value("time", _TIME, when))
        read = self._read_properties(kind, properties)
        given = told.get("id")
        event_id = identifier(given, "id") if not absent(given) else derived_id(user_id, kind.name, at, read)
        return NewEvent(user_key(self._workspace, user_id), event_id, kind.name, at, read)

    def _given(self, told: Mapping[str, Any], name: str) -> object:
        raw = told.get(name)
        return self._defaults.get(name) if absent(raw) else raw

    def _read_properties(self, kind: EventType, raw: Mapping[str, Any]) -> dict[str, Stored]:
        read: dict[str, Stored] = {}
        for name, one in raw.items():
            shape = kind.properties.get(name)
            if shape is None:
                refuse_key(name, kind.properties, f"{kind.name} has no property")
            value = read_value(name, shape, one)
            if value is not None:
                read[name] = value
        for name, text in self._defaults.items():
            if name in kind.properties and name not in read:
                value = read_value(name, kind.properties[name], text)
                if value is not None:
                    read[name] = value
        return read

    def _read_object(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
        told: dict[str, Any] = {}
        properties: Mapping[str, Any] = {}
        for key, raw in values.items():
            if key in self._layout.ignored:
                continue
            name = self._layout.mapping.get(key, key)
            name = EVENT_ALIASES.get(name, USER_ALIASES.get(name, name))
            if name == "properties" and (raw is None or isinstance(raw, dict)):
                properties = {self._layout.mapping.get(one, one): inner for one, inner in (raw or {}).items()}
            elif name not in ("user_id", "name", "time", "id"):
                refuse_key(key, ("user_id", "name", "time", "id", "properties"), "an event has no key")
            elif name in told:
                raise RowFaultError(f"{name} is there twice (keep one)")
            else:
                told[name] = raw
        return told, properties


def derived_id(user_id: str, name: str, at: int, properties: Mapping[str, Stored]) -> str:
    """The id of an event that has none: a hash of user, name, time and properties, so equal rows are one event."""
    told = orjson.dumps([user_id, name, at, dict(properties)], option=orjson.OPT_SORT_KEYS)
    return blake2b(told, digest_size=16).hexdigest()


class ListRows:
    """Reads rows as members of a list: one user id a row."""

    def __init__(self, catalogue: Catalogue, columns: Sequence[str] | None, layout: Layout) -> None:
        self._workspace = catalogue.workspace
        self._layout = layout
        if columns is None:
            return
        targets = layout.targets(columns, USER_ALIASES)
        required(targets, {}, "user_id", columns)
        for name in targets:
            if name not in ("user_id", None):
                raise WrongCall(f"{name}: a list has only user ids", remedy=f"pass --ignore {name}")
        self._id = targets.index("user_id")

    def read(self, values: Values) -> str:
        """The user key of one row. Raises `RowFaultError`."""
        if not isinstance(values, Mapping):
            return user_key(self._workspace, identifier(values[self._id], "user_id"))
        raw: object = None
        for key, value in values.items():
            name = self._layout.mapping.get(key, key)
            if USER_ALIASES.get(name, name) == "user_id":
                raw = value
            elif key not in self._layout.ignored:
                refuse_key(key, ("user_id",), "a list has only user ids, not")
        return user_key(self._workspace, identifier(raw, "user_id"))
