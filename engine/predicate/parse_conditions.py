"""Read conditions on one field or property, e.g. `{gte: 3, lt: 9}`, into the normal form of `engine.predicate.tree`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from engine.catalogue.value_parsing import RefusedValueError, parse_scalar
from engine.catalogue.values import FieldType, Shape, Value, fold, successor
from engine.catalogue.workspace_file import closest
from engine.clock import millis, parse_duration
from engine.errors import Fault, Mark
from engine.predicate.tree import NOBODY, Bound, Element, Exists, FieldCompare, Tree, all_of, none_of
from engine.yamlfile.nodes import Node, dotted

MOST_VALUES: Final = 10_000
"""Maximum values of one `in`: far below the limit of a single query of either store; longer ones belong in a list."""

LONGEST_EDGE: Final = 256
"""Maximum bytes of a text in an order comparison or prefix.

Lucene refuses the automaton of a range whose ends have about 1,000.
"""

_ORDER: Final = ("gt", "gte", "lt", "lte")
_TIMES: Final = ("older_than", "within", "within_next")
_ALL: Final = ("eq", "ne", "in", "not_in", *_ORDER, "prefix", "exists", *_TIMES)


def operators(shape: Shape) -> tuple[str, ...]:
    """Return the operators that a field or property of this type supports."""
    if shape.type is FieldType.BOOLEAN:
        return ("eq", "ne", "exists")
    if shape.type is FieldType.STRING:
        return ("eq", "ne", "in", "not_in", *_ORDER, "prefix", "exists")
    return ("eq", "ne", "in", "not_in", *_ORDER, "exists", *(_TIMES if shape.type is FieldType.TIME else ()))


class Faults:
    """Collects faults, each with its place, so that an author sees all of them at once."""

    def __init__(self) -> None:
        self.collected: list[Fault] = []

    def add(self, mark: Mark, path: tuple[str | int, ...], problem: str, suggestion: str = "") -> None:
        """Record one mistake."""
        self.collected.append(Fault(mark, dotted(path), problem, suggestion))


def read_duration(node: Node, path: tuple[str | int, ...], faults: Faults, *, zero: bool = False) -> int | None:
    """Read a duration in ms; record a fault and return None if it is invalid. `zero` says whether 0s is allowed."""
    if isinstance(node.value, str):
        try:
            length = millis(parse_duration(node.value))
        except (ValueError, OverflowError):
            pass
        else:
            if length or zero:
                return length
            faults.add(node.mark, path, "a window of length zero contains nothing", "write a longer one, e.g. 1d")
            return None
    hint = f"did you mean {node.value}d?" if str(node.value).isdigit() else ""
    shown = node.value if isinstance(node.value, (str, int, float)) else "something else"
    faults.add(node.mark, path, f"expected a duration such as 90s, 15m, 12h or 14d, got {shown}", hint)
    return None


def read_literal(shape: Shape, node: Node, path: tuple[str | int, ...], faults: Faults) -> Value | None:
    """Read one literal of the type of `shape`; record a fault and return None if it is invalid.

    If the shape ignores case, the literal is folded.
    """
    raw = node.value
    if isinstance(raw, (list, dict)) or raw is None:
        got, hint = ("nothing", "write {exists: false} for a missing value") if raw is None else ("several values", "")
        if isinstance(raw, list):
            hint = "write {in: [...]}"
        faults.add(node.mark, path, f"expected one {shape.type}, got {got}", hint)
        return None
    if isinstance(raw, str) and shape.type not in (FieldType.STRING, FieldType.TIME, FieldType.DECIMAL):
        hint = f"did you mean {raw}?" if _reads(shape, raw) else _thousands(raw)
        faults.add(node.mark, path, f'expected {_article(shape)}, got the text "{raw}"', hint)
        return None
    try:
        value = parse_scalar(shape, raw)
    except RefusedValueError as error:
        faults.add(node.mark, path, str(error))
        return None
    return fold(value) if shape.case_ignored and isinstance(value, str) else value


def read_conditions(
    shape: Shape, node: Node, path: tuple[str | int, ...], faults: Faults, fields: Mapping[str, Shape] | None
) -> Tree:
    """Read the condition on a field or property; `fields`, if given, are the fields it may be compared with.

    Several operators are a conjunction. The element operators (`eq in gt gte lt lte prefix` and the times) require one
    element that satisfies them all; `ne not_in exists` apply to the whole field.
    """
    if not isinstance(node.value, dict):
        value = read_literal(shape, node, path, faults)
        return NOBODY if value is None else Element(shape, (value,))
    if not node.value:
        faults.add(node.mark, path, "no condition", "write {exists: true}")
    reader = _Conditions(shape, faults, fields)
    for key, operand in node.value.items():
        reader.read(key, node.keys[key], operand, (*path, key))
    return reader.tree()


class _Conditions:
    def __init__(self, shape: Shape, faults: Faults, fields: Mapping[str, Shape] | None) -> None:
        self.shape = shape
        self.faults = faults
        self.fields = fields
        self.values: list[tuple[Value, ...]] = []
        self.bounds: list[Bound] = []
        self.parts: list[Tree] = []

    def read(self, key: str, mark: Mark, operand: Node, path: tuple[str | int, ...]) -> None:
        known = operators(self.shape)
        # Only fields have relative times: a property's own time would need separate crossing sets.
        usable = known if self.fields is not None else tuple(op for op in known if op not in _TIMES)
        if key not in usable:
            if key in _ALL:
                name = "an event property" if key in known else _article(self.shape)
                self.faults.add(mark, path, f"{key} is not for {name}", f"known: {', '.join(usable)}")
            else:
                hint = closest(key, usable) or f"known: {', '.join(usable)}"
                self.faults.add(mark, path, f"no operator is called {key!r}", hint)
        elif isinstance(operand.value, dict):
            self.compare(key, operand, path)
        elif key in ("in", "not_in"):
            self.among(key, operand, path)
        elif key == "exists":
            self.exists(operand, path)
        elif key in _TIMES:
            self.window(key, operand, path)
        elif (value := read_literal(self.shape, operand, path, self.faults)) is not None:
            if key in (*_ORDER, "prefix") and isinstance(value, str) and len(value.encode()) > LONGEST_EDGE:
                problem = f"{key} takes a text of at most {LONGEST_EDGE} bytes"
                self.faults.add(operand.mark, path, problem, "compare with a shorter one")
            else:
                self.literal(key, value)

    def literal(self, key: str, value: Value) -> None:
        match key:
            case "eq":
                self.values.append((value,))
            case "ne":
                self.parts += [Exists(self.shape), none_of(Element(self.shape, (value,)))]
            case "prefix" if isinstance(value, str):
                self.bounds.append(Bound("gte", value))
                if (beyond := successor(value)) is not None:
                    self.bounds.append(Bound("lt", beyond))
            case "gt" | "gte" | "lt" | "lte":
                self.bounds.append(Bound(key, value))
            case _:  # pragma: no cover - read() lets nothing else through
                raise AssertionError(key)

    def among(self, key: str, operand: Node, path: tuple[str | int, ...]) -> None:
        if not isinstance(operand.value, list) or not operand.value:
            self.faults.add(operand.mark, path, "expected a list of values", f"write {key}: [...]")
            return
        if len(operand.value) > MOST_VALUES:
            problem = f"{len(operand.value)} values; at most {MOST_VALUES} are allowed"
            self.faults.add(operand.mark, path, problem, "import them as a list")
            return
        read = [read_literal(self.shape, item, (*path, i), self.faults) for i, item in enumerate(operand.value)]
        values = tuple(dict.fromkeys(value for value in read if value is not None))
        if key == "in":
            self.values.append(values)
        else:
            self.parts += [Exists(self.shape), none_of(Element(self.shape, values))]

    def exists(self, operand: Node, path: tuple[str | int, ...]) -> None:
        if not isinstance(operand.value, bool):
            self.faults.add(operand.mark, path, "expected true or false")
        else:
            self.parts.append(Exists(self.shape) if operand.value else none_of(Exists(self.shape)))

    def window(self, key: str, operand: Node, path: tuple[str | int, ...]) -> None:
        length = read_duration(operand, path, self.faults, zero=key == "older_than")
        if length is None:
            return
        match key:
            case "older_than":
                self.bounds.append(Bound("lte", -length, relative=True))
            case "within":
                self.bounds += [Bound("gt", -length, relative=True), Bound("lte", 0, relative=True)]
            case _:
                self.bounds += [Bound("gt", 0, relative=True), Bound("lte", length, relative=True)]

    def compare(self, key: str, operand: Node, path: tuple[str | int, ...]) -> None:
        parts = operand.value if isinstance(operand.value, dict) else {}
        name = parts.get("field")
        if list(parts) != ["field"] or name is None or not isinstance(name.value, str):
            self.faults.add(operand.mark, path, "expected a value", "or write {field: OTHER_FIELD}")
            return
        where = (*path, "field")
        if self.fields is None:
            self.faults.add(operand.mark, where, "an event property is not compared with a field")
            return
        other = self.fields.get(name.value)
        if other is None:
            hint = closest(name.value, self.fields)
            self.faults.add(name.mark, where, f"no field is called {name.value!r}", hint)
        elif key not in ("eq", "ne", *_ORDER):
            self.faults.add(operand.mark, path, f"{key} does not compare two fields", "use eq, ne, gt, gte, lt or lte")
        elif self.shape.many or other.many:
            self.faults.add(name.mark, where, "an array is not compared with a field")
        elif not _comparable(self.shape, other):
            problem = f"{_article(self.shape)} and {_article(other)} do not compare"
            if self.shape.type is other.type:
                problem = "they differ in " + ("scale" if self.shape.scale != other.scale else "case")
            self.faults.add(name.mark, where, problem, "compare fields of one type")
        else:
            op: Literal["eq", "ne", "gt", "gte", "lt", "lte"] = key  # type: ignore[assignment]  # checked above
            self.parts.append(FieldCompare(self.shape, op, other))

    def tree(self) -> Tree:
        if not self.values and not self.bounds:
            return all_of(*self.parts)
        values: tuple[Value, ...] | None = None
        if self.values:
            values = tuple(value for value in self.values[0] if all(value in more for more in self.values[1:]))
        return all_of(element(self.shape, values, tuple(self.bounds)), *self.parts)


def element(shape: Shape, values: tuple[Value, ...] | None, bounds: tuple[Bound, ...]) -> Tree:
    """Return an element with constant bounds folded into the values and each other; `NOBODY` if nothing can match."""
    fixed = [bound for bound in bounds if not bound.relative]
    moving = tuple(bound for bound in bounds if bound.relative)
    if values is not None:
        left = tuple(value for value in values if all(bound.admits(value, 0) for bound in fixed))
        return Element(shape, left, moving) if left else NOBODY
    lower = _tightest([bound for bound in fixed if bound.op in ("gt", "gte")], "gt")
    upper = _tightest([bound for bound in fixed if bound.op in ("lt", "lte")], "lt")
    if lower and upper and _is_empty(lower, upper):
        return NOBODY
    return Element(shape, None, tuple(bound for bound in (lower, upper) if bound) + moving)


def _tightest(bounds: list[Bound], strict: Literal["gt", "lt"]) -> Bound | None:
    best: Bound | None = None
    for bound in bounds:
        if best is None or (best.admits(bound.value, 0) and (bound.value != best.value or bound.op == strict)):
            best = bound
    return best


def _is_empty(lower: Bound, upper: Bound) -> bool:
    if lower.value == upper.value:
        return lower.op == "gt" or upper.op == "lt"
    return not upper.admits(lower.value, 0)


def _comparable(left: Shape, right: Shape) -> bool:
    if {left.type, right.type} == {FieldType.INTEGER, FieldType.NUMBER}:
        return True
    return left.type is right.type and left.scale == right.scale and left.case_ignored == right.case_ignored


def _reads(shape: Shape, raw: str) -> bool:
    try:
        parse_scalar(shape, raw)
    except RefusedValueError:
        return False
    return True


def _thousands(raw: str) -> str:
    return f"did you mean {raw[:-1]}000?" if raw[:-1].isdigit() and raw.endswith(("k", "K")) else ""


def _article(shape: Shape) -> str:
    if shape.type is FieldType.INTEGER:
        return "a whole number"
    return f"{'an array' if shape.many else 'a'} {'of ' if shape.many else ''}{shape.type}"
