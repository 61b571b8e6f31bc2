"""The tree of a predicate, in the one normal form that every target compiles.

Comparisons become *elements*: some element of the field (the value itself, if it is no array) lies in a set of values
and within bounds. So prefixes, windows and comparisons have the same form, and a negated comparison is an existence and
a negated element. Each target therefore has few cases.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from engine.catalogue.values import Shape, Value
from engine.clock import Instant

Comparison: TypeAlias = Literal["gt", "gte", "lt", "lte"]
SIGNS: Final[dict[str, str]] = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "eq": "==", "ne": "!="}


@dataclass(frozen=True, slots=True)
class Bound:
    """`x > value`, `x <= as_of + value` (`relative`, in ms) and so on."""

    op: Comparison
    value: str | int | float
    relative: bool = False

    def at(self, as_of: Instant) -> str | int | float:
        """Return the value to compare with at `as_of`."""
        return int(self.value) + as_of if self.relative else self.value

    def admits(self, value: Value, as_of: Instant) -> bool:
        """Whether `value`, of the same type, satisfies the bound; generated code computes the same, faster."""
        edge = self.at(as_of)
        match self.op:
            case "gt":
                return bool(value > edge)  # type: ignore[operator]
            case "gte":
                return bool(value >= edge)  # type: ignore[operator]
            case "lt":
                return bool(value < edge)  # type: ignore[operator]
            case "lte":
                return bool(value <= edge)  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class Constant:
    """Everybody, or nobody."""

    holds: bool


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class NoneOf:
    """No part holds."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Exists:
    """The field or property has a value (for an array: at least one)."""

    shape: Shape


@dataclass(frozen=True, slots=True)
class Element:
    """Some element is one of `values` (if given) and within all `bounds`; false if the field is missing."""

    shape: Shape
    values: tuple[Value, ...] | None = None
    bounds: tuple[Bound, ...] = ()


@dataclass(frozen=True, slots=True)
class FieldCompare:
    """Both fields have a value and the comparison holds. Neither is an array."""

    left: Shape
    op: Literal["eq", "ne", "gt", "gte", "lt", "lte"]
    right: Shape


@dataclass(frozen=True, slots=True)
class InList:
    """The user is a member of the list."""

    name: str


@dataclass(frozen=True, slots=True)
class EventSet:
    """Events of one name with `t <= as_of`, `t > as_of - within` (ms, if given) and properties that satisfy `where`."""

    event: str
    within: int | None = None
    where: Tree = Constant(True)


@dataclass(frozen=True, slots=True)
class EventLeaf:
    """The number of events in a set, from `least` to `most`, and the sum of a property, from `sum_least` to `sum_most`.

    The empty set counts 0 and sums 0; None is no bound; sums are whole (scaled) numbers. With `after`, only events
    strictly later than the earliest of that other set count.
    """

    events: EventSet
    least: int = 0
    most: int | None = None
    sum_of: Shape | None = None
    sum_least: int | None = None
    sum_most: int | None = None
    after: EventSet | None = None

    def holds(self, count: int, total: int) -> bool:
        """Whether a set with this many events and this sum satisfies the leaf."""
        return (
            self.least <= count
            and (self.most is None or count <= self.most)
            and (self.sum_least is None or self.sum_least <= total)
            and (self.sum_most is None or total <= self.sum_most)
        )


@dataclass(frozen=True, slots=True)
class SummaryLeaf:
    """A part of an event's summary on the user (over all stored events) is within a bound; false if it is missing."""

    event: str
    part: Literal["n", "first", "last"]
    bound: Bound


@dataclass(frozen=True, slots=True)
class SummaryOrder:
    """The last stored event of `later` is strictly later than the first stored one of `earlier`."""

    later: str
    earlier: str


@dataclass(frozen=True, slots=True)
class Named:
    """A condition as the author wrote it in one place: `text` and the dotted `where`; compilers use its `body`."""

    text: str
    where: str
    body: Tree


Group: TypeAlias = AllOf | AnyOf | NoneOf
Leaf: TypeAlias = Constant | Exists | Element | FieldCompare | InList | EventLeaf | SummaryLeaf | SummaryOrder
Tree: TypeAlias = Group | Leaf | Named
Predicate: TypeAlias = Tree
"""The name that other packages use."""

EVERYBODY: Final = Constant(True)
NOBODY: Final = Constant(False)


def all_of(*parts: Tree) -> Tree:
    """Return the conjunction, with constants folded, nested conjunctions flattened, repeats left out."""
    flat: list[Tree] = []
    for part in parts:
        if part == NOBODY:
            return NOBODY
        if isinstance(part, AllOf):
            flat.extend(part.parts)
        elif part != EVERYBODY:
            flat.append(part)
    once = tuple(dict.fromkeys(flat))
    return once[0] if len(once) == 1 else AllOf(once) if once else EVERYBODY


def any_of(*parts: Tree) -> Tree:
    """Return the disjunction, with constants folded, nested disjunctions flattened, repeats left out."""
    flat: list[Tree] = []
    for part in parts:
        if part == EVERYBODY:
            return EVERYBODY
        if isinstance(part, AnyOf):
            flat.extend(part.parts)
        elif part != NOBODY:
            flat.append(part)
    once = tuple(dict.fromkeys(flat))
    return once[0] if len(once) == 1 else AnyOf(once) if once else NOBODY


def none_of(*parts: Tree) -> Tree:
    """Return the negated disjunction, with constants and double negations folded."""
    inner = any_of(*parts)
    if isinstance(inner, Constant):
        return Constant(not inner.holds)
    if isinstance(inner, NoneOf):
        return any_of(*inner.parts)
    return NoneOf(inner.parts if isinstance(inner, AnyOf) else (inner,))


def plain(tree: Tree) -> Tree:
    """Return the folded tree without the `Named` places: the form that the compilers use."""
    match tree:
        case Named():
            return plain(tree.body)
        case AllOf():
            return all_of(*map(plain, tree.parts))
        case AnyOf():
            return any_of(*map(plain, tree.parts))
        case NoneOf():
            return none_of(*map(plain, tree.parts))
        case Element(values=()):
            return NOBODY
        case EventLeaf():
            return _plain_event(tree)
        case _:
            return tree


def _plain_event(leaf: EventLeaf) -> Tree:
    events = replace(leaf.events, where=plain(leaf.events.where))
    after = replace(leaf.after, where=plain(leaf.after.where)) if leaf.after else None
    if events.where == NOBODY or (after and after.where == NOBODY):
        return Constant(leaf.holds(0, 0))
    return replace(leaf, events=events, after=after)


def leaves(tree: Tree) -> Iterator[Leaf]:
    """Yield every leaf of the tree, in order; conditions on event properties are not included."""
    match tree:
        case Named():
            yield from leaves(tree.body)
        case AllOf() | AnyOf() | NoneOf():
            for part in tree.parts:
                yield from leaves(part)
        case _:
            yield tree


def named(tree: Tree) -> Iterator[Named]:
    """Yield every place that the author wrote, in order, outermost only."""
    match tree:
        case Named():
            yield tree
        case AllOf() | AnyOf() | NoneOf():
            for part in tree.parts:
                yield from named(part)
        case _:
            return
