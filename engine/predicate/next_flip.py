"""Compute when time alone could next change an answer: possibly too early, never too late.

Every leaf that names time flips only when `as_of` passes an instant in the data: the time of a field or an event, plus
the length of the window. Parts without time come first: if they alone decide, time changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.fields import Field, Row
from engine.clock import Instant
from engine.predicate.compile_python import EventFacts, Generator
from engine.predicate.tree import (
    AllOf,
    AnyOf,
    Constant,
    Element,
    EventLeaf,
    EventSet,
    NoneOf,
    SummaryLeaf,
    Tree,
    all_of,
    any_of,
    leaves,
)

NextFlip: TypeAlias = Callable[[Row, EventFacts | None, Instant], Instant | None]
_Flip: TypeAlias = Callable[[Row, EventFacts | None, Instant], Instant]

NEVER: Final[Instant] = 1 << 62
"""Later than any instant of a store."""

_PLACES: Final = {"n": 0, "first": 1, "last": 2}


def depends_on_time(tree: Tree) -> bool:
    """Whether time alone can change the answer."""
    for leaf in leaves(tree):
        if isinstance(leaf, EventLeaf):
            return True
        if isinstance(leaf, Element) and any(bound.relative for bound in leaf.bounds):
            return True
        if isinstance(leaf, SummaryLeaf) and leaf.bound.relative:
            return True
    return False


def next_flip(tree: Tree, catalogue: Catalogue, queries: Mapping[str, int]) -> NextFlip:
    """Return the function `next_flip(row, facts or None, as_of) -> Instant | None` of a plain tree.

    Without facts, the function uses the summaries of events: then the moment may be as early as one millisecond from
    now.
    """
    if not depends_on_time(tree):
        return lambda _row, _facts, _as_of: None
    inner = _flip(tree, catalogue, queries)

    def flip(row: Row, facts: EventFacts | None, as_of: Instant) -> Instant | None:
        instant = inner(row, facts, as_of)
        return None if instant >= NEVER else instant

    return flip


def _flip(tree: Tree, catalogue: Catalogue, queries: Mapping[str, int]) -> _Flip:
    if isinstance(tree, (AllOf, AnyOf, NoneOf)):
        return _group(tree, catalogue, queries)
    if isinstance(tree, EventLeaf):
        return _event(tree, catalogue, queries)
    if isinstance(tree, SummaryLeaf):
        return _summary(tree, catalogue)
    return _element(tree) if isinstance(tree, Element) else lambda _row, _facts, _as_of: NEVER


def _group(tree: AllOf | AnyOf | NoneOf, catalogue: Catalogue, queries: Mapping[str, int]) -> _Flip:
    still = [part for part in tree.parts if not depends_on_time(part)]
    moving = [_flip(part, catalogue, queries) for part in tree.parts if depends_on_time(part)]
    joined = all_of(*still) if isinstance(tree, AllOf) else any_of(*still)
    goes_on = isinstance(tree, AllOf)
    decides = Generator(catalogue, queries).matches(joined) if not isinstance(joined, Constant) else None

    def flip(row: Row, facts: EventFacts | None, as_of: Instant) -> Instant:
        if decides is not None and decides(row, (), as_of) is not goes_on:
            return NEVER
        return min(part(row, facts, as_of) for part in moving)

    return flip


def _element(tree: Element) -> _Flip:
    slot = tree.shape.slot if isinstance(tree.shape, Field) else tree.shape.name
    offsets = sorted({int(bound.value) for bound in tree.bounds if bound.relative}, reverse=True)

    def flip(row: Row, _facts: EventFacts | None, as_of: Instant) -> Instant:
        value = getattr(row, slot)
        if value is None:
            return NEVER
        return min((value - offset for offset in offsets if value - offset > as_of), default=NEVER)

    return flip


def _summary(tree: SummaryLeaf, catalogue: Catalogue) -> _Flip:
    place, part = catalogue.event_places[tree.event], _PLACES[tree.part]
    offset = int(tree.bound.value)

    def flip(row: Row, _facts: EventFacts | None, as_of: Instant) -> Instant:
        summary = row.e[place]
        return summary[part] - offset if summary is not None and summary[part] - offset > as_of else NEVER

    return flip


def _event(leaf: EventLeaf, catalogue: Catalogue, queries: Mapping[str, int]) -> _Flip:
    sets = [_event_set(events, catalogue, queries) for events in (leaf.events, leaf.after) if events]
    return lambda row, facts, as_of: min(flip(row, facts, as_of) for flip in sets)


def _event_set(events: EventSet, catalogue: Catalogue, queries: Mapping[str, int]) -> _Flip:
    place, query = catalogue.event_places[events.event], queries[events.event]
    lengths = (0,) if events.within is None else (0, events.within)

    def flip(row: Row, facts: EventFacts | None, as_of: Instant) -> Instant:
        if facts is None:
            return from_summary(row, as_of)
        moments = (t + length for t, _ in facts[query] for length in lengths)
        return min((moment for moment in moments if moment > as_of), default=NEVER)

    def from_summary(row: Row, as_of: Instant) -> Instant:
        summary = row.e[place]
        if summary is None or summary[2] + lengths[-1] <= as_of:
            return NEVER
        count, first, last = summary
        earliest = [t + length for t in (first, last) for length in lengths if t + length > as_of]
        # There may be other events between the first and the last, which may enter or leave the window at any moment.
        if count > 2 and any(first + length <= as_of < last + length for length in lengths):
            return as_of + 1
        return min(earliest, default=NEVER)

    return flip
