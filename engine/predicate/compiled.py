"""A compiled predicate: its tests and filters, the fields and events it names, and its cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Literal

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.fields import Field, Row
from engine.catalogue.values import Shape
from engine.clock import Instant
from engine.domain.document import Document
from engine.predicate.candidates import Candidates, candidates
from engine.predicate.compile_elastic import elastic_answer
from engine.predicate.compile_mongo import Answer, mongo_answer, mongo_filter
from engine.predicate.compile_python import EventFacts, Filter, Generator, Matches
from engine.predicate.crossings import Crossing, crossings
from engine.predicate.explain import Explainable, LeafResult, explain, explainable
from engine.predicate.next_flip import NextFlip, depends_on_time, next_flip
from engine.predicate.relaxation import by_summary, ever, relaxed
from engine.predicate.tree import (
    EVERYBODY,
    AllOf,
    Constant,
    Element,
    EventLeaf,
    EventSet,
    Exists,
    FieldCompare,
    InList,
    Leaf,
    SummaryLeaf,
    Tree,
    leaves,
    plain,
)

__all__ = [
    "Answer",
    "Candidates",
    "CompiledPredicate",
    "Crossing",
    "EventFacts",
    "EventQuery",
    "LeafResult",
    "compile_predicate",
]


@dataclass(frozen=True, slots=True)
class EventQuery:
    """The events of one name that a predicate reads: those of a window (or all), and some of their properties."""

    name: str
    within: timedelta | None
    properties: tuple[str, ...]

    def mongo(self, as_of: Instant) -> Document:
        """Return the filter on `events`, for use beside a range of `user` (index {user, n, t}).

        It also finds events later than `as_of`: `next_flip` needs their times.
        """
        if self.within is None:
            return {"n": self.name}
        return {"n": self.name, "t": {"$gt": as_of - self.within // timedelta(milliseconds=1)}}

    def projection(self) -> dict[str, int]:
        """Return the projection of an event."""
        return {"_id": 0, "user": 1, "n": 1, "t": 1, **{f"p.{name}": 1 for name in self.properties}}


@dataclass(frozen=True, eq=False)
class CompiledPredicate:
    """A predicate, compiled for every target; immutable, and safe to share between threads."""

    tree: Tree
    catalogue: Catalogue
    fields: frozenset[str]
    events: frozenset[str]
    lists: frozenset[str]
    event_queries: tuple[EventQuery, ...]
    matches: Matches
    """`matches(row, events, as_of) -> bool`: exact. `events` may be empty if there are no event queries."""
    filter_rows: Filter
    """`filter_rows(rows, {user key: events}, as_of) -> [index]`; a user without facts has no events."""
    next_flip: NextFlip
    """`next_flip(row, events or None, as_of) -> Instant | None`: maybe too early, never too late."""
    _plain: Tree
    _queries: Mapping[str, int]
    _possible: Matches
    _certain: Matches
    _summaries: bool

    @property
    def cost(self) -> Literal["quick", "slow"]:
        """`slow` if the decision must read events, else `quick`."""
        return "slow" if self.event_queries else "quick"

    def maybe(self, row: Row, as_of: Instant) -> bool | None:
        """Answer without events, from their summaries: True and False are certain, None needs the events."""
        if not self._possible(row, (), as_of):
            return False
        return True if self._certain(row, (), as_of) else None

    def mongo(self, as_of: Instant) -> Answer:
        """Return the filter on `users`: exact, or a superset."""
        return mongo_answer(self._plain, as_of)

    def elastic(self, as_of: Instant) -> Answer:
        """Return the query on the users index: exact, or a superset."""
        return elastic_answer(self._plain, as_of)

    def crossings(self, after: Instant, until: Instant) -> tuple[Crossing, ...]:
        """Return the sets that hold every user whose answer flips by time alone in (after, until]."""
        return crossings(self._plain, self.catalogue, after, until)

    def candidates(
        self, after: Instant | None, as_of: Instant, *, also: Sequence[CompiledPredicate] = ()
    ) -> Candidates:
        """Return who may match at `as_of`, or (with `after`) who may match since then by time alone.

        `also` holds predicates that keep users out, so that their flips let users in as well.
        """
        return candidates(self._plain, self.catalogue, after, as_of, also=[plain(predicate.tree) for predicate in also])

    @cached_property
    def everybody(self) -> bool:
        """Whether every user matches, whatever their data."""
        return self._plain == EVERYBODY

    @cached_property
    def moves(self) -> bool:
        """Whether time alone can change the answer for some user."""
        return depends_on_time(self._plain)

    def explain(self, row: Row, events: EventFacts, as_of: Instant) -> list[LeafResult]:
        """Return each leaf as written: whether it held, and on which data."""
        return explain(self.tree, self._explainable, self.catalogue, self._queries, row=row, events=events, as_of=as_of)

    @cached_property
    def _explainable(self) -> tuple[Explainable, ...]:
        # A separate generator: two threads may run this at once.
        judge = Generator(self.catalogue, self._queries)

        def compile_leaf(leaf: Tree) -> Matches:
            return judge.matches(_answerable(plain(leaf), summaries=self._summaries))

        return explainable(self.tree, compile_leaf)

    @property
    def required_lists(self) -> tuple[str, ...]:
        """Lists that every matching user is a member of: reading one of them finds all matching users."""
        return tuple(part.name for part in self._required() if isinstance(part, InList))

    @property
    def index_paths(self) -> tuple[str, ...]:
        """Paths of `users`; an index on any one of them serves the filter; none means a scan by key range."""
        return tuple(dict.fromkeys(path for path, _ in self._indexable()))

    def index_filters(self, as_of: Instant) -> dict[str, Document]:
        """Return for each of `index_paths` the filter for an index on it alone; it finds every matching user."""
        filters: dict[str, list[Document]] = {}
        for path, part in self._indexable():
            filters.setdefault(path, []).append(mongo_filter(part, as_of))
        return {path: parts[0] if len(parts) == 1 else {"$and": parts} for path, parts in filters.items()}

    def _indexable(self) -> Iterator[tuple[str, Tree]]:
        required = list(self._required())
        for part in required:
            if isinstance(part, (Element, Exists)) and isinstance(part.shape, Field):
                yield part.shape.mongo_path, part
        for part in required:
            if isinstance(part, SummaryLeaf):
                yield f"e.{part.event}.{part.part}", part

    def _required(self) -> Iterator[Tree]:
        widened, _ = relaxed(self._plain, by_summary)
        yield from widened.parts if isinstance(widened, AllOf) else (widened,)


def compile_predicate(tree: Tree, catalogue: Catalogue, *, summaries: bool = True) -> CompiledPredicate:
    """Compile a parsed tree for every target; about a millisecond, once per campaign revision.

    `summaries=False` decides every event leaf by the given facts, even "ever" ones. Goals use it: only events since the
    entry may count, and the caller leaves the others out of the facts.
    """
    written = plain(tree)
    # Include the leaves that folding removed: an explanation shows every leaf that the author wrote.
    named = list(leaves(tree))
    decided = _answerable(written, summaries=summaries)
    events = [leaf for leaf in named if isinstance(leaf, EventLeaf) and not (summaries and ever(leaf))]
    queries = _event_queries(events)
    places = {query.name: place for place, query in enumerate(queries)}
    rule = by_summary if summaries else _unknown
    possible, _ = relaxed(written, rule)
    certain, _ = relaxed(written, rule, widen=False)
    judge = Generator(catalogue, places)
    return CompiledPredicate(
        tree=tree,
        catalogue=catalogue,
        fields=frozenset(shape.name for leaf in named for shape in _fields(leaf)),
        events=frozenset(events.event for leaf in named if isinstance(leaf, EventLeaf) for events in _sets(leaf)),
        lists=frozenset(leaf.name for leaf in named if isinstance(leaf, InList)),
        event_queries=queries,
        matches=judge.matches(decided),
        filter_rows=judge.filter(decided),
        next_flip=next_flip(decided, catalogue, places),
        _plain=written,
        _queries=places,
        _possible=judge.matches(possible),
        _certain=judge.matches(certain),
        _summaries=summaries,
    )


def _answerable(tree: Tree, *, summaries: bool) -> Tree:
    """Return the tree with "ever" leaves decided by summary, so that they need no events."""
    if not summaries:
        return tree

    def rule(leaf: Leaf, _widen: bool) -> tuple[Tree, bool]:
        exact = ever(leaf) if isinstance(leaf, EventLeaf) else None
        return (leaf if exact is None else exact), True

    return relaxed(tree, rule)[0]


def _unknown(leaf: Leaf, widen: bool) -> tuple[Tree, bool]:
    """The rule without summaries: an event leaf may hold, but never certainly does."""
    return (Constant(widen), False) if isinstance(leaf, EventLeaf) else (leaf, True)


def _event_queries(event_leaves: Sequence[EventLeaf]) -> tuple[EventQuery, ...]:
    """Return one query per event name, with the longest window and all properties that any leaf needs."""
    lengths: dict[str, int | None] = {}
    properties: dict[str, set[str]] = {}
    for leaf in event_leaves:
        for events in _sets(leaf):
            known = lengths.get(events.event, 0)
            longer = None if events.within is None or known is None else max(known, events.within)
            lengths[events.event] = longer
            names = properties.setdefault(events.event, set())
            names.update(shape.name for inner in leaves(events.where) for shape in _fields(inner))
        if leaf.sum_of:
            properties[leaf.events.event].add(leaf.sum_of.name)
    return tuple(
        EventQuery(name, None if length is None else timedelta(milliseconds=length), tuple(sorted(properties[name])))
        for name, length in lengths.items()
    )


def _sets(leaf: EventLeaf) -> tuple[EventSet, ...]:
    return (leaf.events, leaf.after) if leaf.after else (leaf.events,)


def _fields(leaf: Leaf) -> tuple[Shape, ...]:
    match leaf:
        case Exists() | Element():
            return (leaf.shape,)
        case FieldCompare():
            return (leaf.left, leaf.right)
        case _:
            return ()
