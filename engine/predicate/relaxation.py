"""Approximate an event leaf, from above and below, by leaves on the event summaries of the user document.

A user document has, per event, the number of stored events and the time of the first and the last (`n`, `first`,
`last`), over all stored events, including those later than `as_of`. From these, `possible` is true for every user for
whom the leaf might hold, and `certain` only for users for whom it must hold. A target that cannot read events uses
`possible` in positive polarity and `certain` under `none`, so its answer is never too narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from engine.predicate.tree import (
    EVERYBODY,
    NOBODY,
    AllOf,
    AnyOf,
    Bound,
    EventLeaf,
    EventSet,
    Leaf,
    Named,
    NoneOf,
    SummaryLeaf,
    SummaryOrder,
    Tree,
    all_of,
    any_of,
    none_of,
)

Rule: TypeAlias = Callable[[Leaf, bool], tuple[Tree, bool]]
"""Maps a leaf, and whether to widen (else narrow) it, to the target's tree and whether that tree is exact."""


def relaxed(tree: Tree, rule: Rule, *, widen: bool = True) -> tuple[Tree, bool]:
    """Replace every leaf of `tree` by `rule`, respecting polarity; also return whether the whole result is exact.

    With `widen`, the result holds for every user for whom `tree` holds; without it, the result holds for no other user.
    """
    match tree:
        case Named():
            return relaxed(tree.body, rule, widen=widen)
        case AllOf() | AnyOf():
            made = [relaxed(part, rule, widen=widen) for part in tree.parts]
            join = all_of if isinstance(tree, AllOf) else any_of
            return join(*(part for part, _ in made)), all(exact for _, exact in made)
        case NoneOf():
            made = [relaxed(part, rule, widen=not widen) for part in tree.parts]
            return none_of(*(part for part, _ in made)), all(exact for _, exact in made)
        case _:
            return rule(tree, widen)


def by_summary(leaf: Leaf, widen: bool) -> tuple[Tree, bool]:
    """The rule of a target that reads users but not events."""
    if not isinstance(leaf, EventLeaf):
        return leaf, True
    exact = ever(leaf)
    if exact is not None:
        return exact, True
    return (possible(leaf) if widen else certain(leaf)), False


def ever(leaf: EventLeaf) -> Tree | None:
    """Return the exact answer by summary, if there is one: "ever" (or "never") any event of the name."""
    events = leaf.events
    if events.within is not None or events.where != EVERYBODY or leaf.after or leaf.sum_of:
        return None
    if (leaf.least, leaf.most) == (1, None):
        return _first_by_now(events)
    return none_of(_first_by_now(events)) if (leaf.least, leaf.most) == (0, 0) else None


def possible(leaf: EventLeaf) -> Tree:
    """Return a tree of summaries that holds for every user for whom the leaf might hold."""
    parts: list[Tree] = []
    if leaf.least >= 1:
        parts += [_maybe_some(leaf), _number(leaf.events, Bound("gte", leaf.least))]
    if leaf.most == 0:
        parts.append(none_of(_surely_some(leaf)))
    elif leaf.most is not None:
        parts.append(none_of(all_of(_surely_all(leaf), _number(leaf.events, Bound("gt", leaf.most)))))
    if not leaf.holds(leaf.least, 0):
        # The empty sum, 0, does not satisfy the leaf, so there must be an event to sum.
        parts.append(_maybe_some(leaf))
    return all_of(*parts)


def certain(leaf: EventLeaf) -> Tree:
    """Return a tree of summaries that holds only for users for whom the leaf must hold."""
    none = none_of(_maybe_some(leaf)) if leaf.holds(0, 0) else NOBODY
    if leaf.sum_of is not None:
        return none
    least: Tree = EVERYBODY
    if leaf.least == 1:
        least = _surely_some(leaf)
    elif leaf.least > 1:
        least = all_of(_surely_all(leaf), _number(leaf.events, Bound("gte", leaf.least)))
    most: Tree = EVERYBODY
    if leaf.most is not None:
        most = any_of(none_of(_maybe_some(leaf)), _number(leaf.events, Bound("lte", leaf.most)))
    return any_of(none, all_of(least, most))


def _number(events: EventSet, bound: Bound) -> Tree:
    return SummaryLeaf(events.event, "n", bound)


def _first_by_now(events: EventSet) -> Tree:
    return SummaryLeaf(events.event, "first", Bound("lte", 0, relative=True))


def _last_by_now(events: EventSet) -> Tree:
    return SummaryLeaf(events.event, "last", Bound("lte", 0, relative=True))


def _inside(events: EventSet, part: str) -> Tree:
    """The first (or last) stored event is later than the start of the window."""
    if events.within is None:
        return EVERYBODY
    return SummaryLeaf(events.event, "first" if part == "first" else "last", Bound("gt", -events.within, relative=True))


def _maybe_some(leaf: EventLeaf) -> Tree:
    """The set might not be empty: an event by now, an event after the window's start, and likewise for `after`."""
    own = all_of(_first_by_now(leaf.events), _inside(leaf.events, "last"))
    if leaf.after is None:
        return own
    order = SummaryOrder(leaf.events.event, leaf.after.event)
    return all_of(own, _first_by_now(leaf.after), _inside(leaf.after, "last"), order)


def _surely_some(leaf: EventLeaf) -> Tree:
    """The set is not empty: it contains its first or its last stored event."""
    events, after = leaf.events, leaf.after
    if events.where != EVERYBODY or (after and after.where != EVERYBODY):
        return NOBODY
    last = all_of(_last_by_now(events), _inside(events, "last"))
    if after is None:
        return any_of(all_of(_first_by_now(events), _inside(events, "first")), last)
    # If the other set contains its first stored event, that event is its earliest.
    return all_of(last, _first_by_now(after), _inside(after, "first"), SummaryOrder(events.event, after.event))


def _surely_all(leaf: EventLeaf) -> Tree:
    """The set contains every stored event."""
    if leaf.events.where != EVERYBODY or leaf.after:
        return NOBODY
    return all_of(_last_by_now(leaf.events), _inside(leaf.events, "first"))
