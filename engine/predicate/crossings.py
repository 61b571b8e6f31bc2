"""Crossing sets: the users whose answer can flip by time alone between two passes.

A leaf that names time flips only when `as_of` passes an instant in the data plus the window's length. So between a pass
at `after` and one at `until`, only users with an instant in that interval, shifted by the window, need an evaluation. A
pass over an audience of millions then reads only the few users who crossed a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from engine.catalogue.catalogue import Catalogue
from engine.clock import Instant
from engine.domain.document import Document
from engine.predicate.compile_elastic import elastic_query
from engine.predicate.compile_mongo import mongo_filter
from engine.predicate.tree import Bound, Element, EventLeaf, EventSet, Leaf, SummaryLeaf, Tree, all_of, leaves


@dataclass(frozen=True, slots=True)
class Crossing:
    """Users who may have crossed one line: a MongoDB filter on `collection`, and the same or more in Elasticsearch.

    On `users` the caller adds the key range to the filter. On `events` the filter names workspace, name and time (their
    index), and the users are the distinct `user` values of the events it finds. `elastic` is always a query on the
    users index.
    """

    leaf: str
    collection: Literal["users", "events"]
    mongo: Document
    elastic: Document
    around: Tree
    """The same users or more, as a tree of summaries, for callers that have user rows only."""


def crossings(tree: Tree, catalogue: Catalogue, after: Instant, until: Instant) -> tuple[Crossing, ...]:
    """Return the crossing sets of a plain tree when campaign time moves from `after` to `until`, without repeats.

    With unchanged data, every user whose answer differs between the two moments is in at least one of the sets.
    """
    by_place: dict[tuple[str, str], Crossing] = {}
    for leaf in leaves(tree):
        for crossing in _of_leaf(leaf, catalogue, after, until):
            by_place.setdefault((crossing.collection, repr(crossing.mongo)), crossing)
    return tuple(by_place.values())


def _of_leaf(leaf: Leaf, catalogue: Catalogue, after: Instant, until: Instant) -> Iterator[Crossing]:
    match leaf:
        case Element():
            for offset in sorted({int(bound.value) for bound in leaf.bounds if bound.relative}):
                # x <= as_of + offset changes when as_of passes x - offset: x in (after + offset, until + offset].
                stretch = _stretch(after + offset, until + offset)
                yield _users(f"{leaf.shape.name} passes {offset:+d} ms", Element(leaf.shape, None, stretch), until)
        case SummaryLeaf() if leaf.bound.relative:
            offset = int(leaf.bound.value)
            parts = [SummaryLeaf(leaf.event, leaf.part, b) for b in _stretch(after + offset, until + offset)]
            yield _users(f"{leaf.part} {leaf.event} passes", all_of(*parts), until)
        case EventLeaf():
            for events in (leaf.events, leaf.after):
                if events is not None:
                    yield from _of_events(events, catalogue, after, until)
        case _:
            return


def _of_events(events: EventSet, catalogue: Catalogue, after: Instant, until: Instant) -> Iterator[Crossing]:
    for length in (0,) if events.within is None else (0, events.within):
        low, high = after - length, until - length
        mongo: Document = {"w": catalogue.workspace, "n": events.event, "t": {"$gt": low, "$lte": high}}
        # An event is in (low, high], so the first event is not later than high, and the last is later than low.
        around = all_of(
            SummaryLeaf(events.event, "first", Bound("lte", high)), SummaryLeaf(events.event, "last", Bound("gt", low))
        )
        what = f"{events.event} leaves the window" if length else f"{events.event} comes to be"
        yield Crossing(what, "events", mongo, elastic_query(around, until), around)


def _stretch(low: Instant, high: Instant) -> tuple[Bound, Bound]:
    return Bound("gt", low), Bound("lte", high)


def _users(what: str, tree: Tree, until: Instant) -> Crossing:
    return Crossing(what, "users", mongo_filter(tree, until), elastic_query(tree, until), tree)
