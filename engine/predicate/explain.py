"""Explain why a user matches or not: each leaf that the author wrote, whether it held, and on which data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.fields import Field, Row
from engine.catalogue.values import FieldType, Shape
from engine.clock import Instant, format_instant
from engine.predicate.compile_python import EventFacts, Matches
from engine.predicate.tree import (
    AllOf,
    AnyOf,
    Element,
    EventLeaf,
    Exists,
    FieldCompare,
    InList,
    Named,
    NoneOf,
    SummaryLeaf,
    Tree,
    leaves,
)


@dataclass(frozen=True, slots=True)
class LeafResult:
    """One leaf for one user: `where` and `text` as written, whether it `held`, and the `data` that decided it.

    `wanted` is false under an odd number of `none`. `failed` says that the leaf counts against the user: a leaf of an
    `any` does not if another leaf of it holds.
    """

    where: str
    text: str
    held: bool
    wanted: bool
    data: str
    failed: bool

    @property
    def sentence(self) -> str:
        """Say what the audience asks and whether this user has it: `passes  not unsubscribed: true`.

        `unmet` marks a leaf that is not as asked and need not be: other leaves of its group decided.
        """
        verdict = "fails" if self.failed else "passes" if self.held is self.wanted else "unmet"
        return f"{verdict:6}  {'' if self.wanted else 'not '}{self.text}"


@dataclass(frozen=True, slots=True)
class Explainable:
    """A leaf as the author wrote it, with its compiled test."""

    leaf: Named
    wanted: bool
    test: Matches


def explainable(tree: Tree, compile_leaf: Callable[[Tree], Matches]) -> tuple[Explainable, ...]:
    """Return the leaves of a tree as the author wrote them, each with its test."""
    return tuple(Explainable(leaf, expected, compile_leaf(leaf)) for leaf, expected in _written(tree, expected=True))


def _written(tree: Tree, *, expected: bool) -> Iterator[tuple[Named, bool]]:
    match tree:
        case Named():
            yield tree, expected
        case AllOf() | AnyOf():
            for part in tree.parts:
                yield from _written(part, expected=expected)
        case NoneOf():
            for part in tree.parts:
                yield from _written(part, expected=not expected)
        case _:
            return


def explain(
    tree: Tree,
    parts: tuple[Explainable, ...],
    catalogue: Catalogue,
    queries: Mapping[str, int],
    *,
    row: Row,
    events: EventFacts,
    as_of: Instant,
) -> list[LeafResult]:
    """Return one result per leaf of `tree` (`parts` come from `explainable`), in the order of the file."""
    teller = _Teller(catalogue, queries, row, events, as_of)
    held = [part.test(row, events, as_of) for part in parts]
    by_place = {id(part.leaf): verdict for part, verdict in zip(parts, held, strict=True)}
    blamed = {id(leaf) for leaf in _blamed(tree, by_place, expected=True)}
    return [
        LeafResult(
            part.leaf.where, part.leaf.text, verdict, part.wanted, teller.data(part.leaf.body), id(part.leaf) in blamed
        )
        for part, verdict in zip(parts, held, strict=True)
    ]


def _value(tree: Tree, held: Mapping[int, bool]) -> bool | None:
    """Return whether a tree holds; None for a part that the author did not write."""
    match tree:
        case Named():
            return held[id(tree)]
        case AllOf():
            return all(_value(part, held) is not False for part in tree.parts)
        case AnyOf():
            return any(_value(part, held) is not False for part in tree.parts)
        case NoneOf():
            return not any(_value(part, held) is True for part in tree.parts)
        case _:
            return None


def _blamed(tree: Tree, held: Mapping[int, bool], *, expected: bool) -> Iterator[Named]:
    """Yield the leaves that make `tree` differ from `expected`: failing leaves of an `all`, holding leaves of a `none`.

    If an `any` should hold, all its parts are to blame; if it should not, those that hold are.
    """
    if _value(tree, held) in (expected, None):
        return
    match tree:
        case Named():
            yield tree
        case AllOf() | AnyOf():
            for part in tree.parts:
                yield from _blamed(part, held, expected=expected)
        case NoneOf():
            for part in tree.parts:
                yield from _blamed(part, held, expected=not expected)
        case _:
            return


@dataclass(frozen=True, slots=True)
class _Teller:
    catalogue: Catalogue
    queries: Mapping[str, int]
    row: Row
    events: EventFacts
    as_of: Instant

    def data(self, body: Tree) -> str:
        """Return the data that the leaves of one place read, each item once."""
        return "; ".join(dict.fromkeys(text for leaf in leaves(body) for text in self.of_leaf(leaf)))

    def of_leaf(self, leaf: Tree) -> Iterator[str]:
        match leaf:
            case Exists() | Element():
                yield self.field(leaf.shape)
            case FieldCompare():
                yield self.field(leaf.left)
                yield self.field(leaf.right)
            case InList():
                yield f"lists are {', '.join(self.row.lists) or 'none'}"
            case SummaryLeaf():
                yield self.summary(leaf.event)
            case EventLeaf():
                yield self.stored(leaf.events.event)
                if leaf.after:
                    yield self.stored(leaf.after.event)
            case _:
                return

    def field(self, shape: Shape) -> str:
        value = getattr(self.row, shape.slot if isinstance(shape, Field) else shape.name)
        if value is None:
            return f"{shape.name} is missing"
        shown = ", ".join(show(shape, item) for item in value) if shape.many else show(shape, value)
        return f"{shape.name} is {shown}"

    def summary(self, event: str) -> str:
        summary = self.row.e[self.catalogue.event_places[event]]
        if summary is None:
            return f"no {event} is stored"
        return f"{summary[0]} {event} from {format_instant(summary[1])} to {format_instant(summary[2])}"

    def stored(self, event: str) -> str:
        if event not in self.queries:
            return self.summary(event)
        times = sorted(t for t, _ in self.events[self.queries[event]] if t <= self.as_of)
        if not times:
            return f"no {event} up to {format_instant(self.as_of)} was considered"
        return f"{len(times)} {event} considered, the last at {format_instant(times[-1])}"


def show(shape: Shape, value: object) -> str:
    """Format a value as people write it: a decimal with its point, a time in ISO 8601."""
    if shape.type is FieldType.TIME and isinstance(value, int):
        return format_instant(value)
    if shape.type is FieldType.DECIMAL and isinstance(value, int) and shape.scale:
        digits = f"{abs(value):0{shape.scale + 1}d}"
        return f"{'-' if value < 0 else ''}{digits[: -shape.scale]}.{digits[-shape.scale :]}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)
