"""Predicates as Elasticsearch queries on the users index, and user documents in the form of that index.

The index holds only values of the declared type (the document is read into a row first), so the queries need no type
guards: a missing value is absent. Arrays are Lucene's multi-values: a range or a term requires one value that satisfies
it. Elasticsearch cannot compare two fields without scripts, so such a leaf only requires that both exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.fields import Field
from engine.catalogue.values import Shape
from engine.clock import Instant
from engine.domain.document import Document
from engine.domain.keys import hash_of, suffix_of_user, workspace_of
from engine.predicate.compile_mongo import Answer
from engine.predicate.relaxation import by_summary, relaxed
from engine.predicate.tree import (
    EVERYBODY,
    NOBODY,
    AllOf,
    AnyOf,
    Constant,
    Element,
    EventLeaf,
    Exists,
    FieldCompare,
    InList,
    Leaf,
    Named,
    NoneOf,
    SummaryLeaf,
    SummaryOrder,
    Tree,
    all_of,
)

LONGEST_TERM: Final = 30_000
"""Maximum bytes of one indexed text.

Lucene allows 32,766. A folded literal has at most 24,000, so a text that is cut here still differs from every literal
in the same way, and sorts the same.
"""


def elastic_answer(tree: Tree, as_of: Instant) -> Answer:
    """Return the query of a plain tree at `as_of`, for use under `filter` beside workspace and hash range."""
    widened, exact = relaxed(tree, _rule)
    return Answer(elastic_query(widened, as_of), exact, widened.holds if isinstance(widened, Constant) else None)


def _rule(leaf: Leaf, widen: bool) -> tuple[Tree, bool]:
    if isinstance(leaf, FieldCompare):
        return (all_of(Exists(leaf.left), Exists(leaf.right)) if widen else NOBODY), False
    if isinstance(leaf, SummaryOrder):
        return (EVERYBODY if widen else NOBODY), False
    if isinstance(leaf, EventLeaf):
        summary, exact = by_summary(leaf, widen)
        query, whole = relaxed(summary, _rule, widen=widen)
        return query, exact and whole
    return leaf, True


def elastic_query(tree: Tree, as_of: Instant) -> Document:
    """Return the query of a tree without event leaves and field comparisons. Raises `AssertionError` for those."""
    match tree:
        case Named():
            return elastic_query(tree.body, as_of)
        case Constant():
            return {"match_all": {}} if tree.holds else {"match_none": {}}
        case AllOf():
            return {"bool": {"filter": [elastic_query(part, as_of) for part in tree.parts]}}
        case AnyOf():
            return {"bool": {"should": [elastic_query(part, as_of) for part in tree.parts], "minimum_should_match": 1}}
        case NoneOf():
            return {"bool": {"must_not": [elastic_query(part, as_of) for part in tree.parts]}}
        case Exists():
            return {"exists": {"field": path_of(tree.shape)}}
        case Element():
            return _element(tree, as_of)
        case InList():
            return {"term": {"lists": tree.name}}
        case SummaryLeaf():
            path = summary_path(tree.event, tree.part)
            return {"range": {path: {tree.bound.op: tree.bound.at(as_of)}}}
        case _:  # pragma: no cover - the rule replaces it
            raise AssertionError(f"{type(tree).__name__} has no query")


def path_of(shape: Shape) -> str:
    """Return the path of a field in an indexed user. Raises `AssertionError` for an event's property."""
    if not isinstance(shape, Field):
        raise AssertionError(f"{shape.name} is not a field of a user")  # noqa: TRY004 - a bug, not a wrong argument
    return shape.elastic_path


def summary_path(event: str, part: str) -> str:
    """Return the path of a part (`n`, `first`, `last`) of an event's summary in an indexed user."""
    return f"{'i' if part == 'n' else 't'}.e:{event}:{part}"


def _element(tree: Element, as_of: Instant) -> Document:
    path = path_of(tree.shape)
    if tree.values is not None:
        values = [value for value in tree.values if all(bound.admits(value, as_of) for bound in tree.bounds)]
        return {"term": {path: values[0]}} if len(values) == 1 else {"terms": {path: values}}
    # One range per value: Lucene applies a range to each value separately, so one query must hold all bounds.
    limits: dict[str, str | int | float] = {}
    for bound in tree.bounds:
        edge = bound.at(as_of)
        held = limits.get(bound.op)
        limits[bound.op] = edge if held is None or bound.admits(held, as_of) is False else held
    for strict, loose in (("gt", "gte"), ("lt", "lte")):
        if strict in limits and loose in limits:
            # Elasticsearch accepts one bound a side: keep the tighter one.
            above = limits[loose] > limits[strict]  # type: ignore[operator]
            below = limits[loose] < limits[strict]  # type: ignore[operator]
            del limits[strict if (above if strict == "gt" else below) else loose]
    return {"range": {path: limits}}


def elastic_document(catalogue: Catalogue, document: Mapping[str, object]) -> Document:
    """Return the indexed form of a user document (with `_id` and the fields of `Catalogue.projection()`).

    Its version is the document's `rev` (external), its `_id` the user key. Values of another type than declared are
    left out; texts above `LONGEST_TERM` bytes are cut, which changes no comparison with a literal.
    """
    row = catalogue.row(document)
    workspace, position = workspace_of(row.key), hash_of(suffix_of_user(row.key))
    indexed: dict[str, dict[str, object]] = {"k": {}, "i": {}, "n": {}, "t": {}, "b": {}}
    for declared in catalogue.fields.values():
        value = getattr(row, declared.slot)
        if value is not None:
            folder, _, slug = declared.elastic_path.partition(".")
            indexed[folder][slug] = [_term(item) for item in value] if declared.many else _term(value)
    for name, summary in zip(catalogue.events, row.e, strict=True):
        if summary is not None:
            indexed["i"][f"e:{name}:n"] = summary[0]
            indexed["t"][f"e:{name}:first"], indexed["t"][f"e:{name}:last"] = summary[1:]
    return {
        "w": workspace,
        "h": position,
        "user_id": row.key,
        "rev": row.rev,
        "deleted": row.deleted,
        "lists": list(row.lists),
        **{folder: values for folder, values in indexed.items() if values},
    }


def _term(value: object) -> object:
    if isinstance(value, float):
        return value + 0.0  # -0.0 becomes 0.0: only Lucene distinguishes them
    if isinstance(value, str) and len(value) * 4 > LONGEST_TERM:
        return value.encode()[:LONGEST_TERM].decode(errors="ignore")
    return value
