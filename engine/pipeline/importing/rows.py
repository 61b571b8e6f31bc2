"""Turn rows into changes, strictly by the catalogue: a row means exactly one thing, or is refused with a reason.

In a table (CSV, Parquet) an empty cell holds no value: the field stays as it is. In NDJSON a missing key holds no
value, and null removes the field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, TypeAlias, cast

import orjson

from engine.catalogue.catalogue import Catalogue, EventType
from engine.catalogue.fields import Field
from engine.catalogue.values import FieldType, Shape
from engine.catalogue.workspace_file import closest
from engine.domain.changes import NewEvent, Stored, UserChange
from engine.domain.keys import user_key
from engine.errors import WrongCall
from engine.pipeline.importing.columns import (
    NOTHING,
    Layout,
    RowFaultError,
    absent,
    identifier,
    read_value,
    refuse_key,
    required,
)
from engine.pipeline.importing.conversions import Conversion, check_conversions, conversion
from engine.pipeline.importing.json_keys import Key, Keys
from engine.pipeline.importing.row_codegen import build_reader, conversions_of, put, putter

Values: TypeAlias = "Sequence[Any] | Mapping[str, Any]"  # Any: the file's values, checked here

NESTED: Final = ("attributes", "traits")
EVENT_ALIASES: Final = {"event": "name", "timestamp": "time", "messageId": "id"}
USER_ALIASES: Final = {"userId": "user_id"}
MOST_TOLD: Final = 100
"""Names of unknown columns and keys that are kept for the summary."""

_TIME: Final = Shape("time", FieldType.TIME)
_NAME: Final = Shape("name", FieldType.STRING)
_OWN: Final = ("user_id", "name", "time", "id")
"""The keys of an event beside its properties."""


class Unknown:
    """Columns and keys that the workspace does not declare, and that `--ignore-unknown` leaves out."""

    def __init__(self, layout: Layout) -> None:
        self._ignored = layout.ignore_unknown
        self.names: set[str] = set()
        """The names that were left out, up to `MOST_TOLD`."""

    def leave_out(self, name: str) -> bool:
        """Return whether to leave a name out; the summary lists it then."""
        if self._ignored and len(self.names) < MOST_TOLD:
            self.names.add(name)
        return self._ignored


class UserRows:
    """Reads rows as changes of users. Raises `WrongCall` at once for columns that the catalogue does not have."""

    def __init__(self, catalogue: Catalogue, columns: Sequence[str] | None, layout: Layout) -> None:
        self._workspace = catalogue.workspace
        self._layout = layout
        self._fields = {name: field for name, field in catalogue.fields.items() if field.kind != "aggregate"}
        self._aggregates = catalogue.aggregates
        self.keys = Keys(layout, NESTED)
        self.unknown = Unknown(layout)
        for name in layout.defaults:
            self._known(name, f"--default {name}")
            if name == "user_id":
                raise WrongCall("--default user_id: every row names its own user")
        for column, name in layout.mapping.items():
            if USER_ALIASES.get(name, name) != "user_id":
                self._known(name, f"--map {column}={name}")
        readable = {name: [field] for name, field in self._fields.items() if name != "user_id"}
        check_conversions(layout, readable, None)
        self._conversions = conversions_of(self._fields.values(), layout)
        self.omitted: list[str] = []
        """Faults of omitted addresses; the caller that reads the rows clears it."""
        self._puts = {name: putter(field, layout, self.omitted) for name, field in self._fields.items()}
        # Nearly every key of a row is a field by its own name: it needs no check against the options.
        self._direct = {
            name: (field, self._puts[name])
            for name, field in self._fields.items()
            if name != "user_id" and name not in self._conversions and not self.keys.names(name)
        }
        if columns is None:
            return
        targets = layout.targets(columns, USER_ALIASES)
        required(targets, {}, "user_id", columns)
        places = []
        for at, target in enumerate(targets):
            if target is None or target == "user_id" or (columns[at] not in layout.mapping and self._left_out(target)):
                continue
            places.append((at, self._known(target)))
        names = {field.name for _, field in places}
        extra = {self._known(name): text for name, text in layout.defaults.items() if name not in names}
        place = targets.index("user_id")
        self._read_cells = build_reader(
            catalogue.workspace,
            place,
            places,
            defaults=layout.defaults,
            extra=extra,
            conversions=self._conversions,
            puts=self._puts,
        )

    def _left_out(self, name: str) -> bool:
        return self._field(name) is None and self.unknown.leave_out(name)

    def _field(self, name: str) -> Field | None:
        return self._fields.get(name.removeprefix("attributes.").removeprefix("traits."))

    def _known(self, name: str, option: str = "") -> Field:
        known = self._field(name)
        if known is not None:
            return known
        shown = f"{option}: {name}" if option else name
        remedy = f"pass --ignore {name}, or --ignore-unknown"
        if name in self._aggregates:
            raise WrongCall(
                f"{shown} is derived from events", remedy="import the events" + ("" if option else f"; {remedy}")
            )
        hint = closest(name, self._fields) or "declare it in the workspace file"
        if not option:
            hint = f"{hint} (or {remedy})"
        raise WrongCall(f"{shown}: the workspace has no such attribute", remedy=hint)

    def read(self, values: Values) -> UserChange:
        """Read one row. Raises `RowFaultError`."""
        if not isinstance(values, Mapping):
            return self._read_cells(values)
        fields: dict[str, Stored | None] = {}
        uid = self._read_object(values, fields)
        return UserChange(user_key(self._workspace, uid), fields)

    def _read_object(self, values: Mapping[str, Any], fields: dict[str, Stored | None]) -> str:
        uid: object = None
        given: set[str] = set()
        others: dict[str, Any] = {}
        for key, raw in values.items():
            direct = self._direct.get(key)
            if direct is None:
                others[key] = raw
            else:
                given.add(key)
                direct[1](fields, direct[0], raw)
        for entry in self.keys.read(others):
            name = entry.name
            if name in USER_ALIASES and USER_ALIASES[name] not in values:
                name = USER_ALIASES[name]
            if name == "user_id" and (entry.mapped or not entry.path):
                uid = entry.raw
                continue
            field = self._fields.get(name) if entry.mapped or entry.inside or not entry.path else None
            if field is None:
                self._refuse(entry)
                continue
            if name in given:
                raise RowFaultError(f"{name} appears twice (keep one)")
            given.add(name)
            raw = self._conversions[name](entry.raw) if name in self._conversions else entry.raw
            if raw is not NOTHING:
                self._puts[name](fields, field, raw)
        for name, text in self._layout.defaults.items():
            if name not in given:
                put(fields, self._fields[name], text)
        if uid is None and "_id" in values:
            raise RowFaultError("user_id is missing (pass --map _id=user_id)")
        return identifier(uid, "user_id")

    def _refuse(self, key: Key) -> None:
        """Leave a key out if an option asks for that. Raises `RowFaultError` otherwise."""
        if self.unknown.leave_out(key.path or key.key):
            return
        if isinstance(key.raw, dict) and not key.path and closest(key.key, self._fields) == "":
            refuse_key(key.key, self._fields, "the workspace has no attribute", f"{key.key}.PART")
        refuse_key(key.key, self._fields, "the workspace has no attribute", key.path)


class EventRows:
    """Reads rows as events. Raises `WrongCall` at once for columns that no event has."""

    def __init__(self, catalogue: Catalogue, columns: Sequence[str] | None, layout: Layout) -> None:
        self._workspace = catalogue.workspace
        self._events = catalogue.events
        self._layout = layout
        self.keys = Keys(layout, ("properties",))
        self.unknown = Unknown(layout)
        if not self._events:
            raise WrongCall("the workspace declares no events", remedy="add them under events: in the workspace file")
        default = layout.defaults.get("name")
        if default is not None and default not in self._events:
            raise WrongCall(
                f"--default name={default}: no such event is declared", remedy=closest(default, self._events)
            )
        self._check_options()
        self._conversions = {
            (kind.name, name): conversion(shape, layout)
            for kind in self._events.values()
            for name, shape in kind.properties.items()
        }
        self._time, self._name = conversion(_TIME, layout), conversion(_NAME, layout)
        self._defaults = {name.removeprefix("properties."): text for name, text in layout.defaults.items()}
        if columns is None:
            return
        targets = layout.targets(columns, EVENT_ALIASES | USER_ALIASES)
        for name in ("user_id", "time"):
            required(targets, layout.defaults, name, columns)
        if "name" not in targets and default is None:
            example = closest("", self._events) or next(iter(self._events))
            raise WrongCall(
                "the file has no column name, so the event is unknown", remedy=f'pass --default name="{example}"'
            )
        self._places = {name: place for place, name in enumerate(targets) if name is not None}
        possible = [self._events[default]] if default and "name" not in targets else list(self._events.values())
        known = {name for event in possible for name in event.properties}
        self._properties: list[tuple[int, str]] = []
        for name, place in self._places.items():
            if name in _OWN:
                continue
            if name.removeprefix("properties.") not in known:
                if columns[place] not in layout.mapping and self.unknown.leave_out(name):
                    continue
                hint = closest(name, known) or "declare it in the workspace file"
                raise WrongCall(
                    f"{name}: no event has such a property",
                    remedy=f"{hint} (or pass --ignore {name}, or --ignore-unknown)",
                )
            self._properties.append((place, name.removeprefix("properties.")))

    def _check_options(self) -> None:
        """Refuse options whose name no event has. Raises `WrongCall`."""
        layout = self._layout
        shapes: dict[str, list[Shape]] = {"time": [_TIME], "name": [_NAME]}
        for kind in self._events.values():
            for name, shape in kind.properties.items():
                shapes.setdefault(name, []).append(shape)
        known = [*_OWN, *shapes]
        named = [(f"--map {column}={name}", name) for column, name in layout.mapping.items()]
        named += [(f"--default {name}", name) for name in layout.defaults]
        for option, name in named:
            bare = name.removeprefix("properties.")
            if bare not in known and bare not in EVENT_ALIASES and bare not in USER_ALIASES:
                hint = closest(bare, known) or "declare it in the workspace file"
                raise WrongCall(f"{option}: no event has such a property", remedy=hint)
        check_conversions(layout, shapes, list(self._events))

    def read(self, values: Values) -> NewEvent:
        """Read one row. Raises `RowFaultError`."""
        if isinstance(values, Mapping):
            given_values, properties = self._read_object(values)
        else:
            given_values = {name: values[place] for name, place in self._places.items()}
            properties = {name: values[place] for place, name in self._properties if not absent(values[place])}
        user_id = identifier(self._given(given_values, "user_id"), "user_id")
        name = self._given(given_values, "name", self._name)
        if absent(name):
            raise RowFaultError("name is missing, so the event is unknown")
        kind = self._events.get(name) if isinstance(name, str) else None
        if kind is None:
            hint = closest(str(name), self._events) or "declare it in the workspace file"
            raise RowFaultError(f'no event "{str(name)[:60]}" is declared ({hint})')
        when = self._given(given_values, "time", self._time)
        if absent(when):
            raise RowFaultError("time is missing")
        at = cast("int", read_value("time", _TIME, when))
        read = self._read_properties(kind, properties)
        given = given_values.get("id")
        event_id = identifier(given, "id") if not absent(given) else derived_id(user_id, kind.name, at, read)
        return NewEvent(user_key(self._workspace, user_id), event_id, kind.name, at, read)

    def _given(self, values: Mapping[str, Any], name: str, convert: Conversion | None = None) -> object:
        raw = values.get(name)
        if convert is not None:
            raw = convert(raw)
        return self._defaults.get(name) if absent(raw) else raw

    def _read_properties(self, kind: EventType, raw: Mapping[str, Any]) -> dict[str, Stored]:
        read: dict[str, Stored] = {}
        for name, item in raw.items():
            shape = kind.properties.get(name)
            if shape is None:
                if self.unknown.leave_out(name):
                    continue
                refuse_key(name, kind.properties, f"{kind.name} has no property")
            convert = self._conversions[kind.name, name]
            converted = item if convert is None else convert(item)
            value = None if converted is NOTHING else read_value(name, shape, converted)
            if value is not None:
                read[name] = value
        for name, text in self._defaults.items():
            if name in kind.properties and name not in read:
                value = read_value(name, kind.properties[name], text)
                if value is not None:
                    read[name] = value
        return read

    def _read_object(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
        own: dict[str, Any] = {}
        properties: dict[str, Any] = {}
        for key in self.keys.read(values):
            name, raw = key.name, key.raw
            name = EVENT_ALIASES.get(name, USER_ALIASES.get(name, name)) if not key.inside else name
            if key.inside or (key.mapped and name.removeprefix("properties.") not in _OWN):
                properties[name.removeprefix("properties.")] = raw
            elif name == "properties" and raw is None:
                continue
            elif name not in _OWN or (key.path and not key.mapped):
                if not self.unknown.leave_out(key.path or key.key):
                    refuse_key(key.key, (*_OWN, "properties"), "an event has no key", key.path)
            elif name in own:
                raise RowFaultError(f"{name} appears twice (keep one)")
            else:
                own[name] = raw
        if "user_id" not in own and "_id" in values and "user_id" not in self._defaults:
            raise RowFaultError("user_id is missing (pass --map KEY=user_id, and --map _id=id for the event's own id)")
        return own, properties


def derived_id(user_id: str, name: str, at: int, properties: Mapping[str, Stored]) -> str:
    """Return the id of an event without one: a hash of user, name, time and properties, so equal rows are one event."""
    content = orjson.dumps([user_id, name, at, dict(properties)], option=orjson.OPT_SORT_KEYS)
    return blake2b(content, digest_size=16).hexdigest()


class ListRows:
    """Reads rows as members of a list: one user id per row."""

    def __init__(self, catalogue: Catalogue, columns: Sequence[str] | None, layout: Layout) -> None:
        self._workspace = catalogue.workspace
        self.keys = Keys(layout)
        self.unknown = Unknown(layout)
        for column, name in layout.mapping.items():
            if USER_ALIASES.get(name, name) != "user_id":
                raise WrongCall(f"--map {column}={name}: a list has only user ids", remedy=f"--map {column}=user_id")
        check_conversions(layout, {}, None)
        if columns is None:
            return
        targets = layout.targets(columns, USER_ALIASES)
        required(targets, {}, "user_id", columns)
        for target in targets:
            if target not in ("user_id", None) and not self.unknown.leave_out(str(target)):
                raise WrongCall(
                    f"{target}: a list has only user ids", remedy=f"pass --ignore {target}, or --ignore-unknown"
                )
        self._id = targets.index("user_id")

    def read(self, values: Values) -> str:
        """Return the user key of one row. Raises `RowFaultError`."""
        if not isinstance(values, Mapping):
            return user_key(self._workspace, identifier(values[self._id], "user_id"))
        raw: object = None
        for key in self.keys.read(values):
            if USER_ALIASES.get(key.name, key.name) == "user_id" and (key.mapped or not key.path):
                raw = key.raw
            elif not self.unknown.leave_out(key.path or key.key):
                refuse_key(key.key, ("user_id",), "a list has only user ids, not", key.path)
        return user_key(self._workspace, identifier(raw, "user_id"))
