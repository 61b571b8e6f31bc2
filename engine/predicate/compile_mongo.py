"""Predicates as MongoDB filters on `users`: exact for fields and lists, a superset for events in a window.

MongoDB's own rules are wider than ours: a comparison searches arrays, `5` equals `5.0`, a missing field equals null. So
every leaf has a type guard, and a scalar field must also not be an array. Text compares by UTF-8 bytes: that is the
order of code points, and therefore Python's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from engine.catalogue.fields import Field
from engine.catalogue.values import LARGEST_NUMBER, WHOLE_TYPES, FieldType, Shape
from engine.clock import Instant
from engine.domain.document import Document
from engine.predicate.relaxation import by_summary, relaxed
from engine.predicate.tree import (
    AllOf,
    AnyOf,
    Bound,
    Constant,
    Element,
    EventLeaf,
    Exists,
    FieldCompare,
    InList,
    Named,
    NoneOf,
    SummaryLeaf,
    SummaryOrder,
    Tree,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A query for a store: `filter` finds exactly the matching users if `exact`, else at least those.

    `holds` is True if everybody matches and False if nobody does, whatever their data.
    """

    filter: Document
    exact: bool
    holds: bool | None = None


EVERYBODY: Final[Mapping[str, object]] = {}
NOBODY: Final[Mapping[str, object]] = {"$nor": [{}]}


def mongo_answer(tree: Tree, as_of: Instant) -> Answer:
    """Return the filter of a plain tree at `as_of`. It names no `_id`, so the caller can add a key range."""
    widened, exact = relaxed(tree, by_summary)
    return Answer(mongo_filter(widened, as_of), exact, widened.holds if isinstance(widened, Constant) else None)


def mongo_filter(tree: Tree, as_of: Instant) -> Document:  # noqa: C901 - a case for each kind of tree
    """Return the filter of a tree that names summaries only. Raises `AssertionError` for an event leaf."""
    match tree:
        case Named():
            return mongo_filter(tree.body, as_of)
        case Constant():
            return dict(EVERYBODY if tree.holds else NOBODY)
        case AllOf():
            return {"$and": [mongo_filter(part, as_of) for part in tree.parts]}
        case AnyOf():
            return {"$or": [mongo_filter(part, as_of) for part in tree.parts]}
        case NoneOf():
            return {"$nor": [mongo_filter(part, as_of) for part in tree.parts]}
        case Exists():
            return {path_of(tree.shape): _guarded(tree.shape, {})}
        case Element():
            return {path_of(tree.shape): _guarded(tree.shape, _element(tree, as_of))}
        case FieldCompare():
            return _compare(tree)
        case InList():
            return {"lists": tree.name}
        case SummaryLeaf():
            return {f"e.{tree.event}.{tree.part}": {f"${tree.bound.op}": tree.bound.at(as_of)}}
        case SummaryOrder():
            later, earlier = f"$e.{tree.later}.last", f"$e.{tree.earlier}.first"
            # A missing part sorts below every number, so require both parts.
            present = [{"$gt": [part, None]} for part in (later, earlier)]
            return {"$expr": {"$and": [*present, {"$gt": [later, earlier]}]}}
        case EventLeaf():  # pragma: no cover - by_summary replaces it
            raise AssertionError("an event leaf has no filter on users")


def path_of(shape: Shape) -> str:
    """Return the path of a field in a user document. Raises `AssertionError` for an event's property."""
    if not isinstance(shape, Field):
        raise AssertionError(f"{shape.name} is not a field of a user")  # noqa: TRY004 - a bug, not a wrong argument
    return shape.mongo_path


def type_guard(shape: Shape) -> Document:
    """Return the filter that accepts a stored value, or an element, only if it has this type."""
    if shape.type in WHOLE_TYPES:
        return {"$type": ["int", "long"]}
    if shape.type is FieldType.NUMBER:
        # NaN and the infinities are not values: NaN compares with nothing, so the bounds exclude it too.
        return {"$type": "double", "$gte": -LARGEST_NUMBER, "$lte": LARGEST_NUMBER}
    return {"$type": "string" if shape.type is FieldType.STRING else "bool"}


def _guarded(shape: Shape, condition: Document) -> Document:
    guard = type_guard(shape)
    if "$gte" in guard:
        # Keep the tighter of two bounds: the bounds in `condition` lie within the largest numbers.
        guard = {key: value for key, value in guard.items() if not _bounded(condition, key)}
    both = {**guard, **condition}
    # An array needs $elemMatch; a scalar must not be found inside an array.
    return {"$elemMatch": both} if shape.many else {**both, "$not": {"$type": "array"}}


def _bounded(condition: Document, key: str) -> bool:
    return (key == "$gte" and ("$gte" in condition or "$gt" in condition)) or (
        key == "$lte" and ("$lte" in condition or "$lt" in condition)
    )


def _element(tree: Element, as_of: Instant) -> Document:
    bounds = [(bound, bound.at(as_of)) for bound in tree.bounds]
    if tree.values is not None:
        values = [value for value in tree.values if all(bound.admits(value, as_of) for bound in tree.bounds)]
        return {"$eq": values[0]} if len(values) == 1 else {"$in": values}
    condition: Document = {}
    for bound, edge in bounds:
        _tighten(condition, bound, edge)
    return condition


def _tighten(condition: Document, bound: Bound, edge: str | int | float) -> None:
    """Add a bound; keep the tighter of two on the same side, so that an array's elements are tested by one range."""
    strict, loose = ("$gt", "$gte") if bound.op in ("gt", "gte") else ("$lt", "$lte")
    for key in (strict, loose):
        held = condition.get(key)
        if held is None:
            continue
        held_bound = Bound("gt" if strict == "$gt" else "lt", held)
        tighter = held_bound.admits(edge, 0) or (held == edge and key == loose and f"${bound.op}" == strict)
        if not tighter:
            return
        del condition[key]
    condition[f"${bound.op}"] = edge


def _compare(tree: FieldCompare) -> Document:
    left, right = f"${path_of(tree.left)}", f"${path_of(tree.right)}"
    guards = [*_expression_guard(tree.left, left), *_expression_guard(tree.right, right)]
    return {"$expr": {"$and": [*guards, {f"${tree.op}": [left, right]}]}}


def _expression_guard(shape: Shape, path: str) -> list[Document]:
    guard = type_guard(shape)
    types = guard.pop("$type")
    # In an expression NaN sorts below every number, so the bounds exclude it here as well.
    bounds: list[Document] = [{key: [path, edge]} for key, edge in guard.items()]
    return [{"$in": [{"$type": path}, types if isinstance(types, list) else [types]]}, *bounds]
