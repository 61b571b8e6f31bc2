"""Parse predicates from YAML nodes into the tree; report every mistake with its place, all at once."""

from __future__ import annotations

import math
from typing import Final

from engine.catalogue.catalogue import Catalogue, EventType
from engine.catalogue.values import FieldType, Shape
from engine.catalogue.workspace_file import closest
from engine.errors import InvalidSource
from engine.predicate.parse_conditions import Faults, read_conditions, read_duration, read_literal
from engine.predicate.tree import (
    EVERYBODY,
    NOBODY,
    AllOf,
    AnyOf,
    EventLeaf,
    EventSet,
    InList,
    Named,
    NoneOf,
    Tree,
    all_of,
)
from engine.yamlfile.nodes import Node, Plain, dotted

Path_ = tuple[str | int, ...]

DEEPEST: Final = 12
"""Maximum levels of all/any/none.

Elasticsearch refuses boolean queries nested deeper than 30, and each level may need two.
"""

MOST_LEAVES: Final = 500
"""Maximum leaves of one predicate: below the clause limit of one Elasticsearch query, however they are compiled."""

_WORDS: Final = ("all", "any", "none", "list", "event")


def parse_predicate(node: Node, catalogue: Catalogue, path: Path_ = ()) -> Tree:
    """Parse a predicate into its tree; `path` is the position of `node` in its document.

    A mapping is a conjunction of its entries: `all`, `any` and `none` (lists of predicates), `list: NAME`, `event:
    {...}`, and `FIELD: value` or `FIELD: {operator: value}`. Raises `InvalidSource` with every fault.
    """
    parser = _Parser(catalogue)
    tree = parser.predicate(node, path, 0)
    if parser.leaves > MOST_LEAVES:
        parser.faults.add(
            node.mark, path, f"{parser.leaves} leaves; at most {MOST_LEAVES} are allowed", "use in: or a list"
        )
    if parser.faults.collected:
        raise InvalidSource(parser.faults.collected)
    return tree


class _Parser:
    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.faults = Faults()
        self.leaves = 0

    def predicate(self, node: Node, path: Path_, depth: int) -> Tree:
        if not isinstance(node.value, dict):
            hint = "write all: and the list under it" if isinstance(node.value, list) else "e.g. orders_count: {gte: 3}"
            self.faults.add(node.mark, path, "expected a predicate", hint)
            return NOBODY
        if not node.value:
            self.faults.add(node.mark, path, "an empty predicate", "write all: [] for all users")
        parts = [self.entry(key, value, node, (*path, key), depth) for key, value in node.value.items()]
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def entry(self, key: str, node: Node, parent: Node, path: Path_, depth: int) -> Tree:
        if key in ("all", "any", "none"):
            return self.group(key, node, path, depth)
        self.leaves += 1
        body: Tree
        if key == "list":
            body = self.in_list(node, path)
        elif key == "event":
            body = self.event(node, path)
        elif (declared := self.catalogue.fields.get(key)) is not None:
            body = read_conditions(declared, node, path, self.faults, self.catalogue.fields)
        else:
            hint = closest(key, [*self.catalogue.fields, *_WORDS])
            if key in self.catalogue.events:
                hint = f"did you mean event: {{name: {key}}}?"
            self.faults.add(parent.keys[key], path, f"no field is called {key!r}", hint)
            return NOBODY
        return Named(f"{key}: {flow(node.plain())}", dotted(path), body)

    def group(self, key: str, node: Node, path: Path_, depth: int) -> Tree:
        if not isinstance(node.value, list):
            hint = "write a dash before it" if isinstance(node.value, dict) else f"write {key}: [...]"
            self.faults.add(node.mark, path, f"{key} takes a list of predicates", hint)
            return NOBODY
        if depth >= DEEPEST:
            self.faults.add(node.mark, path, f"nested deeper than {DEEPEST} levels", "nest it less")
            return NOBODY
        if not node.value and key != "all":
            hint = "remove it, or write all: [] for all users"
            self.faults.add(node.mark, path, f"{key} is empty", hint)
        parts = tuple(self.predicate(item, (*path, i), depth + 1) for i, item in enumerate(node.value))
        if key == "all":
            return AllOf(parts) if parts else EVERYBODY
        return AnyOf(parts) if key == "any" else NoneOf(parts)

    def in_list(self, node: Node, path: Path_) -> Tree:
        if not isinstance(node.value, str) or not node.value:
            hint = f'write "{node.value}"' if type(node.value) is int else "write any: with one list: each"
            self.faults.add(node.mark, path, "expected the name of one list", hint)
            return NOBODY
        return InList(node.value)

    def event(self, node: Node, path: Path_) -> Tree:
        parts, kind = self.event_parts(node, path, ("name", "within", "where", "count", "sum", "after"))
        if kind is None:
            return NOBODY
        events = self.event_set(parts, kind, path)
        after: EventSet | None = None
        if "after" in parts:
            inner, other = self.event_parts(parts["after"], (*path, "after"), ("name", "within", "where"))
            after = self.event_set(inner, other, (*path, "after")) if other else None
        default = 0 if "sum" in parts else 1
        least, most = (default, None) if "count" not in parts else self.count(parts["count"], (*path, "count"))
        leaf = EventLeaf(events, least, most, after=after)
        if "sum" in parts:
            leaf = self.sum(leaf, kind, parts["sum"], (*path, "sum"))
        return _folded(leaf)

    def event_parts(
        self, node: Node, path: Path_, allowed: tuple[str, ...]
    ) -> tuple[dict[str, Node], EventType | None]:
        if not isinstance(node.value, dict):
            hint = f"write {{name: {node.value}}}" if isinstance(node.value, str) else "write {name: ...}"
            self.faults.add(node.mark, path, "expected an event with its name", hint)
            return {}, None
        for key in node.value:
            if key not in allowed:
                hint = closest(key, allowed) or f"known: {', '.join(allowed)}"
                self.faults.add(node.keys[key], (*path, key), "unknown key", hint)
        name = node.value.get("name")
        if name is None or not isinstance(name.value, str):
            self.faults.add(node.mark, path, "the event's name is missing", "add name: ...")
            return node.value, None
        kind = self.catalogue.events.get(name.value)
        if kind is None:
            hint = closest(name.value, self.catalogue.events)
            self.faults.add(name.mark, (*path, "name"), f"no event is called {name.value!r}", hint)
        return node.value, kind

    def event_set(self, parts: dict[str, Node], kind: EventType, path: Path_) -> EventSet:
        within = read_duration(parts["within"], (*path, "within"), self.faults) if "within" in parts else None
        where: Tree = EVERYBODY
        node = parts.get("where")
        if node is not None and not isinstance(node.value, dict):
            self.faults.add(
                node.mark, (*path, "where"), "expected properties with conditions", "where: {PROPERTY: ...}"
            )
        elif node is not None and isinstance(node.value, dict):
            held: list[Tree] = []
            for name, condition in node.value.items():
                place = (*path, "where", name)
                shape = kind.properties.get(name)
                if shape is None:
                    hint = closest(name, kind.properties) or f"known: {', '.join(kind.properties) or 'none'}"
                    self.faults.add(node.keys[name], place, f"{kind.name} has no property {name!r}", hint)
                else:
                    held.append(read_conditions(shape, condition, place, self.faults, None))
            where = all_of(*held)
        return EventSet(kind.name, within, where)

    def count(self, node: Node, path: Path_) -> tuple[int, int | None]:
        least, most = self.interval(Shape("count", FieldType.INTEGER), node, path, ())
        if least is not None and least < 0:
            self.faults.add(node.mark, path, "a count is never negative")
        return max(least or 0, 0), most

    def sum(self, leaf: EventLeaf, kind: EventType, node: Node, path: Path_) -> EventLeaf:
        parts = node.value if isinstance(node.value, dict) else {}
        of = parts.get("of")
        if of is None:
            self.faults.add(node.mark, path, "the property to sum is missing", "write {of: PROPERTY, gt: 200}")
            return leaf
        shape = kind.properties.get(str(of.value))
        if shape is None:
            hint = closest(str(of.value), kind.properties)
            self.faults.add(of.mark, (*path, "of"), f"{kind.name} has no property {of.value!r}", hint)
            return leaf
        if shape.type not in (FieldType.INTEGER, FieldType.DECIMAL) or shape.many:
            hint = "declare it as decimal or integer: sums are exact"
            self.faults.add(of.mark, (*path, "of"), f"{shape.title} cannot be summed", hint)
            return leaf
        least, most = self.interval(shape, node, path, ("of",))
        return EventLeaf(leaf.events, leaf.least, leaf.most, shape, least, most, leaf.after)

    def interval(self, shape: Shape, node: Node, path: Path_, beside: tuple[str, ...]) -> tuple[int | None, int | None]:
        """Return the closed interval of whole numbers that `{gte: 1, lt: 9}` or a single number describes."""
        conditions = node.value if isinstance(node.value, dict) else {"eq": node}
        low, high = -math.inf, math.inf
        keys = [key for key in conditions if key not in beside]
        if not keys:
            self.faults.add(node.mark, path, "nothing to compare with", "e.g. gte: 1")
        for key in keys:
            place = (*path, key) if node.keys else path
            if key not in ("eq", "gt", "gte", "lt", "lte"):
                hint = closest(key, ("eq", "gt", "gte", "lt", "lte", *beside)) or "known: eq, gt, gte, lt, lte"
                self.faults.add(node.keys.get(key, node.mark), place, f"no comparison is called {key!r}", hint)
                continue
            value = read_literal(shape, conditions[key], place, self.faults)
            if not isinstance(value, int):
                continue
            if key in ("eq", "gt", "gte"):
                low = max(low, value + (key == "gt"))
            if key in ("eq", "lt", "lte"):
                high = min(high, value - (key == "lt"))
        return None if low == -math.inf else int(low), None if high == math.inf else int(high)


def _folded(leaf: EventLeaf) -> Tree:
    sum_open = leaf.sum_least is None and leaf.sum_most is None
    if leaf.least == 0 and leaf.most is None and sum_open:
        return EVERYBODY
    if leaf.most is not None and leaf.most < leaf.least:
        return NOBODY
    if leaf.sum_least is not None and leaf.sum_most is not None and leaf.sum_most < leaf.sum_least:
        return NOBODY
    return leaf


def flow(value: Plain) -> str:
    """Write a plain value on one line, as an author would."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)
