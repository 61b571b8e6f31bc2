"""Read workspace files, `conf/workspaces/NAME.yaml`, into catalogues; report every mistake with its place.

Mistakes include a name declared twice in two ways, an unknown type, and an aggregate of an undeclared event. Each is a
fault with line, column and a suggestion, and the reader reports all of them at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from engine.catalogue.catalogue import BUILTINS, Aggregate, Catalogue, EventType, Property, Sender
from engine.catalogue.fields import Field
from engine.catalogue.values import MANY_TYPES, FieldType, Shape
from engine.domain.addresses import envelope_address
from engine.errors import Fault, InvalidSource, Mark
from engine.folder_watcher import files_among
from engine.yamlfile.nodes import Node, dotted, read

Path_ = tuple[str | int, ...]

RESERVED: Final = frozenset({"all", "any", "none", "list", "event", "field", "key", "rev", "deleted", "lists", "e"})
"""Words of the language and attributes of a row."""

_WORKSPACE: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_EVENT: Final = re.compile(r"[^\s.$/\x00-\x1f\x7f][^.$/\x00-\x1f\x7f]{0,126}(?<!\s)")
KEYS: Final = ("workspace", "timezone", "locale", "currency", "sender", "attributes", "events", "aggregates")
_LARGEST_SCALE: Final = 9


def closest(word: str, among: Iterable[str], *, case: bool = False) -> str:
    """Return `did you mean X?` for the nearest of `among`, or an empty text."""
    names = {name if case else name.lower(): name for name in among}
    near = difflib.get_close_matches(word if case else word.lower(), names, n=1, cutoff=0.6)
    return f"did you mean {names[near[0]]}?" if near else ""


def read_workspaces(folder: Path) -> dict[str, Catalogue]:
    """Read every `*.yaml` of a folder into catalogues, by workspace. Raises `InvalidSource` for all files at once."""
    catalogues, broken = read_each(folder)
    if broken:
        raise InvalidSource([fault for error in broken.values() for fault in error.faults])
    return catalogues


def read_each(folder: Path) -> tuple[dict[str, Catalogue], dict[str, InvalidSource]]:
    """Return the catalogues of the valid files, by workspace, and the mistakes of the others, by file name."""
    catalogues: dict[str, Catalogue] = {}
    broken: dict[str, InvalidSource] = {}
    for path in files_of(folder):
        if path.suffix != ".yaml":
            unread = Fault(Mark(f"{folder.name}/{path.name}", 1, 1), "", "this file is not read", _renamed(path))
            broken[path.stem] = InvalidSource([*_faults(broken.get(path.stem)), unread])
            continue
        try:
            catalogues[path.stem] = read_workspace(path)
        except InvalidSource as error:
            broken[path.stem] = InvalidSource([*_faults(broken.get(path.stem)), *error.faults])
    return catalogues, broken


def _renamed(path: Path) -> str:
    return f"rename it to {path.stem}.yaml"


def _faults(error: InvalidSource | None) -> tuple[Fault, ...]:
    return () if error is None else error.faults


def files_of(folder: Path) -> list[Path]:
    """Return the workspace files of a folder, in a fixed order, without the files that editors leave there.

    A `.yml` file is included, so that it is refused rather than overlooked.
    """
    return files_among(path for path in folder.glob("*") if path.suffix.lower() in (".yaml", ".yml"))


def read_workspace(path: Path, *, name: str | None = None) -> Catalogue:
    """Read the catalogue of one file; marks show `name` as its path. Raises `InvalidSource` listing all faults."""
    return replace(workspace_of(read(path, name=name), stem=path.stem), templates=path.parent / path.stem / "templates")


def workspace_of(root: Node, *, stem: str | None = None) -> Catalogue:
    """Read the catalogue of a document; `stem`, if given, is the required name of the workspace (its file's name)."""
    return _Reader(root).catalogue(stem)


class _Reader:
    def __init__(self, root: Node) -> None:
        self.root = root
        self.faults: list[Fault] = []

    def fault(self, node: Node, path: Path_, problem: str, suggestion: str = "") -> None:
        self.faults.append(Fault(node.mark, dotted(path), problem, suggestion))

    def fault_key(self, path: Path_, problem: str, suggestion: str = "") -> None:
        self.faults.append(Fault(self.root.key_mark(*path), dotted(path), problem, suggestion))

    def mapping(self, node: Node | None, path: Path_, allowed: Iterable[str] | None = None) -> dict[str, Node]:
        if node is None:
            return {}
        if not isinstance(node.value, dict):
            self.fault(node, path, "expected keys with values")
            return {}
        if allowed is not None:
            known = list(allowed)
            for key in node.value:
                if key not in known:
                    self.fault_key((*path, key), "unknown key", closest(key, known) or f"known: {', '.join(known)}")
        return node.value

    def text(self, parts: dict[str, Node], key: str, path: Path_, owner: Node) -> str:
        node = parts.get(key)
        if node is None:
            self.fault(owner, path, f"{key} is missing", f"add {key}: ...")
            return ""
        if not isinstance(node.value, str) or not node.value:
            self.fault(node, (*path, key), "expected a text")
            return ""
        return node.value

    def catalogue(self, stem: str | None) -> Catalogue:
        parts = self.mapping(self.root, (), KEYS)
        name = self.text(parts, "workspace", (), self.root)
        if name and not _WORKSPACE.fullmatch(name):
            self.fault(parts["workspace"], ("workspace",), f"{name!r} is not a valid name", "use a-z, 0-9, - and _")
        elif name and stem is not None and name != stem:
            self.fault(parts["workspace"], ("workspace",), f"the file is called {stem}", f"write workspace: {stem}")
        zone = self.zone(parts)
        locale, currency = self.locale(parts.get("locale")), self.currency(parts.get("currency"))
        sender = self.sender(parts.get("sender"))
        attributes = self.attributes(parts.get("attributes"))
        events = self.events(parts.get("events"))
        aggregates, derived = self.aggregates(parts.get("aggregates"), events, attributes)
        if self.faults:
            raise InvalidSource(self.faults)
        fields = {**BUILTINS, **attributes, **derived}
        return Catalogue(name, zone, sender, fields, events, aggregates, locale, currency)

    def zone(self, parts: dict[str, Node]) -> str:
        if "timezone" not in parts:
            return "UTC"
        name = self.text(parts, "timezone", (), self.root)
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            from zoneinfo import available_timezones

            self.fault(
                parts["timezone"], ("timezone",), f"{name!r} is not a time zone", closest(name, available_timezones())
            )
        return name

    def locale(self, node: Node | None) -> str:
        if node is None:
            return "en"
        from babel import Locale, UnknownLocaleError  # only a workspace with a locale needs it

        try:
            Locale.parse(str(node.value).replace("-", "_"))
        except (UnknownLocaleError, ValueError):
            self.fault(node, ("locale",), f"{node.value!r} is not a locale", "write e.g. de or de_AT")
        return str(node.value)

    def currency(self, node: Node | None) -> str:
        if node is not None and not re.fullmatch(r"[A-Z]{3}", str(node.value)):
            self.fault(node, ("currency",), f"{node.value!r} is not a currency", "write its three letters, e.g. EUR")
        return "" if node is None else str(node.value)

    def sender(self, node: Node | None) -> Sender | None:
        if node is None:
            return None
        parts = self.mapping(node, ("sender",), ("name", "address", "reply_to", "envelope_from"))
        more = {key: self.text(parts, key, ("sender",), node) for key in ("reply_to", "envelope_from") if key in parts}
        name, address = (self.text(parts, key, ("sender",), node) for key in ("name", "address"))
        sender = Sender(name, address, **more)
        for key, value in (("address", sender.address), *more.items()):
            if value and envelope_address(value) is None:
                self.fault(parts[key], ("sender", key), f"{value!r} is not an e-mail address")
        if any(ord(letter) < 32 for letter in sender.name):
            self.fault(parts["name"], ("sender", "name"), "has a line break or control character")
        return sender

    def shape(self, node: Node, name: str, path: Path_) -> Shape | None:
        """Read a type: `string`, or with options, such as `{type: decimal, scale: 2}`. Return None after a fault."""
        parts: dict[str, Node] = {}
        kind = node
        if isinstance(node.value, dict):
            parts = self.mapping(node, path, ("type", "scale", "many", "case"))
            if "type" not in parts:
                self.fault(node, path, "type is missing", "add type: string")
                return None
            kind, path = parts["type"], (*path, "type")
        if kind.value not in list(FieldType):
            hint = closest(str(kind.value), FieldType) or f"known: {', '.join(FieldType)}"
            aliases = {"int": "integer", "float": "number", "double": "number", "text": "string", "bool": "boolean",
                       "date": "time", "datetime": "time", "timestamp": "time", "money": "decimal"}  # fmt: skip
            if str(kind.value) in aliases:
                hint = f"did you mean {aliases[str(kind.value)]}?"
            self.fault(kind, path, f"{kind.value!r} is not a type", hint)
            return None
        return self.options(FieldType(str(kind.value)), parts, name, path[:-1] if parts else path)

    def options(self, type_: FieldType, parts: dict[str, Node], name: str, path: Path_) -> Shape:
        many, case, scale = parts.get("many"), parts.get("case"), parts.get("scale")
        if many is not None and not isinstance(many.value, bool):
            self.fault(many, (*path, "many"), "expected true or false")
        elif many is not None and many.value and type_ not in MANY_TYPES:
            self.fault(
                many,
                (*path, "many"),
                f"an array of {type_} is not supported",
                f"arrays: {', '.join(sorted(MANY_TYPES))}",
            )
        if case is not None and case.value not in ("ignore", "keep"):
            self.fault(case, (*path, "case"), "expected ignore or keep")
        elif case is not None and case.value == "ignore" and type_ is not FieldType.STRING:
            self.fault(case, (*path, "case"), f"a {type_} has no case", "remove it")
        places = 0
        if type_ is FieldType.DECIMAL:
            if scale is None:
                self.fault_key(path, "a decimal needs a scale", "write {type: decimal, scale: 2}")
            elif type(scale.value) is not int or not 0 <= scale.value <= _LARGEST_SCALE:
                self.fault(scale, (*path, "scale"), f"expected a whole number from 0 to {_LARGEST_SCALE}")
            else:
                places = scale.value
        elif scale is not None:
            self.fault(scale, (*path, "scale"), f"a {type_} has no scale", "remove it, or use type: decimal")
        return Shape(name, type_, bool(many and many.value), places, bool(case and case.value == "ignore"))

    def attributes(self, node: Node | None) -> dict[str, Field]:
        fields: dict[str, Field] = {}
        for name, declared in self.mapping(node, ("attributes",)).items():
            path: Path_ = ("attributes", name)
            if self.name(name, path) and (shape := self.shape(declared, name, path)):
                fields[name] = Field(name, shape.type, shape.many, shape.scale, shape.case_ignored, "attribute")
        return fields

    def name(self, name: str, path: Path_) -> bool:
        if name in BUILTINS:
            self.fault_key(path, "is built in", "remove it, or rename it")
        elif name in RESERVED:
            self.fault_key(path, "is a word of the predicate language", f"did you mean {name}_name?")
        elif not _NAME.fullmatch(name):
            self.fault_key(
                path,
                f"{name!r} is not a valid name",
                f"did you mean {re.sub(r'[^A-Za-z0-9_]+', '_', name).strip('_')}?",
            )
        else:
            return True
        return False

    def events(self, node: Node | None) -> dict[str, EventType]:
        events: dict[str, EventType] = {}
        for name, declared in self.mapping(node, ("events",)).items():
            path: Path_ = ("events", name)
            if not _EVENT.fullmatch(name):
                hint = f"did you mean {re.sub(r'[./$]+', '_', name).strip()}?"
                self.fault_key(
                    path, "an event's name must not contain a dot, slash or dollar, nor begin or end with a space", hint
                )
            properties: dict[str, Property] = {}
            for key, shaped in self.mapping(declared, path).items():
                if not _NAME.fullmatch(key):
                    self.fault_key((*path, key), f"{key!r} is not a valid name", "use letters, digits and _")
                elif shape := self.shape(shaped, key, (*path, key)):
                    properties[key] = Property(key, shape.type, shape.many, shape.scale, shape.case_ignored)
            events[name] = EventType(name, properties)
        return events

    def aggregates(
        self, node: Node | None, events: dict[str, EventType], attributes: dict[str, Field]
    ) -> tuple[dict[str, Aggregate], dict[str, Field]]:
        aggregates: dict[str, Aggregate] = {}
        fields: dict[str, Field] = {}
        for name, declared in self.mapping(node, ("aggregates",)).items():
            path: Path_ = ("aggregates", name)
            parts = self.mapping(declared, path, ("event", "count", "first", "last", "sum"))
            if name in attributes:
                self.fault_key(path, "is an attribute too", "rename one of them")
            if not self.name(name, path) or not parts:
                continue
            event = self.text(parts, "event", path, declared)
            if event and event not in events:
                self.fault(parts["event"], (*path, "event"), f"no event is called {event!r}", closest(event, events))
            kinds = [kind for kind in ("count", "first", "last", "sum") if kind in parts]
            if len(kinds) != 1:
                self.fault(declared, path, "expected exactly one of count, first, last, sum", "e.g. count: true")
            elif event in events and (made := self.aggregate(name, events[event], kinds[0], parts[kinds[0]], path)):
                aggregates[name], fields[name] = made
        return aggregates, fields

    def aggregate(
        self, name: str, event: EventType, kind: str, node: Node, path: Path_
    ) -> tuple[Aggregate, Field] | None:
        if kind == "sum":
            summed = event.properties.get(str(node.value))
            if summed is None:
                hint = closest(str(node.value), event.properties)
                self.fault(node, (*path, kind), f"{event.name} has no property {node.value!r}", hint)
                return None
            if summed.type not in (FieldType.INTEGER, FieldType.DECIMAL) or summed.many:
                hint = "declare it as decimal or integer: sums are exact"
                self.fault(node, (*path, kind), f"{summed.title} cannot be summed", hint)
                return None
            return Aggregate(name, event.name, "sum", summed.name), Field(
                name, summed.type, scale=summed.scale, kind="aggregate"
            )
        if node.value is not True:
            self.fault(node, (*path, kind), "expected true", f"write {kind}: true")
            return None
        if kind == "count":
            return Aggregate(name, event.name, "count"), Field(name, FieldType.INTEGER, kind="aggregate")
        side = Aggregate(name, event.name, "first" if kind == "first" else "last")
        return side, Field(name, FieldType.TIME, kind="aggregate")
