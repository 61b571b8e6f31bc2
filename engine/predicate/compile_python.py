"""Predicates as generated Python, the exact judge: one function for a user, one loop for a batch, one for "maybe".

A tree walk evaluates 0.7 M users/s, the generated loop over structs several millions (`docs/architecture.md`), so the
source is generated once per predicate. It contains only our own names and the `repr` of literals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias, cast

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.fields import Field, Row
from engine.catalogue.values import Shape, normaliser
from engine.clock import Instant
from engine.predicate.tree import (
    SIGNS,
    AllOf,
    AnyOf,
    Bound,
    Constant,
    Element,
    EventLeaf,
    EventSet,
    Exists,
    FieldCompare,
    InList,
    Named,
    NoneOf,
    SummaryLeaf,
    SummaryOrder,
    Tree,
    leaves,
)

EventFacts: TypeAlias = Sequence[Sequence[tuple[int, Mapping[str, object]]]]
"""For one user, aligned with the predicate's event queries: the events of each as (t, properties), in any order."""

Matches: TypeAlias = Callable[[Row, EventFacts, Instant], bool]
Filter: TypeAlias = Callable[[Sequence[Row], Mapping[str, EventFacts], Instant], list[int]]

_PARTS: Final[dict[Literal["n", "first", "last"], int]] = {"n": 0, "first": 1, "last": 2}


class Generator:
    """Generates the functions of one predicate. `queries` maps each event to the position of its facts."""

    def __init__(self, catalogue: Catalogue, queries: Mapping[str, int]) -> None:
        self.catalogue = catalogue
        self.queries = queries
        self.space: dict[str, object] = {}
        self.functions: list[str] = []
        self.moments: dict[int, str] = {}

    def matches(self, tree: Tree) -> Matches:
        """Compile `matches(row, facts, as_of) -> bool`."""
        test = self.test(tree)
        return cast("Matches", self.build("matches", "r, f, as_of", [f"return {test}"]))

    def filter(self, tree: Tree) -> Filter:
        """Compile `filter(rows, facts by user key, as_of) -> indexes`; a user without facts has no events."""
        test = self.test(tree)
        self.space["NO_FACTS"] = ((),) * len(self.queries)
        asks_events = any(isinstance(leaf, EventLeaf) for leaf in leaves(tree))
        body = [
            "found = []",
            "add = found.append",
            "i = -1",
            "for r in rows:",
            "    i += 1",
            *(["    f = facts.get(r.key, NO_FACTS)"] if asks_events else []),
            f"    if {test}: add(i)",
            "return found",
        ]
        return cast("Filter", self.build("filter_rows", "rows, facts, as_of", body))

    def living(self, tree: Tree) -> Callable[[Sequence[Row], Instant], list[Row]]:
        """Compile `living(rows, as_of) -> rows`: the users not deleted for whom a tree of summaries holds."""
        test = self.test(tree)
        body = [f"return [r for r in rows if not r.deleted and {test}]"]
        return cast("Callable[[Sequence[Row], Instant], list[Row]]", self.build("living", "rows, as_of", body))

    def build(self, name: str, arguments: str, body: list[str]) -> object:
        """Compile one function; its first lines compute the moments that it needs."""
        moments = [f"{variable} = as_of + {offset}" for offset, variable in self.moments.items()]
        lines = [*self.functions, f"def {name}({arguments}):", *(f"    {line}" for line in [*moments, *body])]
        exec(compile("\n".join(lines), f"<{name}>", "exec"), self.space)  # noqa: S102 - our own source, literals quoted
        self.functions, self.moments = [], {}
        return self.space[name]

    def test(self, tree: Tree) -> str:  # noqa: C901 - a case for each kind of tree
        """Return the expression of a tree over `r` (row), `f` (facts) and `as_of`."""
        match tree:
            case Named():
                return self.test(tree.body)
            case Constant():
                return str(tree.holds)
            case AllOf():
                return f"({' and '.join(self.tests(tree.parts)) or 'True'})"
            case AnyOf():
                return f"({' or '.join(self.tests(tree.parts)) or 'False'})"
            case NoneOf():
                return f"(not ({' or '.join(self.tests(tree.parts)) or 'False'}))"
            case Exists():
                return f"({self.read(tree.shape)} is not None)"
            case Element():
                return self.element(tree)
            case FieldCompare():
                left, right, sign = self.read(tree.left), self.read(tree.right), SIGNS[tree.op]
                return f"((v := {left}) is not None and (u := {right}) is not None and v {sign} u)"
            case InList():
                return f"({tree.name!r} in r.lists)"
            case SummaryLeaf():
                compared = f"s[{_PARTS[tree.part]}] {SIGNS[tree.bound.op]} {self.edge(tree.bound)}"
                return f"((s := r.e[{self.catalogue.event_places[tree.event]}]) is not None and {compared})"
            case SummaryOrder():
                places = self.catalogue.event_places
                later, earlier = f"r.e[{places[tree.later]}]", f"r.e[{places[tree.earlier]}]"
                return f"((s := {later}) is not None and (q := {earlier}) is not None and s[2] > q[1])"
            case EventLeaf():
                return f"{self.event(tree)}(f, as_of)"

    def tests(self, parts: tuple[Tree, ...]) -> list[str]:
        """Return the expressions of parts; those that need no events come first: they are cheap and often decide."""
        ordered = sorted(parts, key=lambda part: any(isinstance(leaf, EventLeaf) for leaf in leaves(part)))
        return [self.test(part) for part in ordered]

    def read(self, shape: Shape) -> str:
        """Return the expression that reads a field from the row, or a property from an event's `p`."""
        if isinstance(shape, Field):
            return f"r.{shape.slot}"
        reader = f"read_{'_'.join((str(shape.type), str(shape.many), str(shape.case_ignored)))}"
        self.space[reader] = normaliser(shape, folding=True)
        return f"{reader}(p.get({shape.name!r}))"

    def edge(self, bound: Bound) -> str:
        """Return a literal, or the variable of a moment that is computed once per call."""
        if not bound.relative:
            return repr(bound.value)
        offset = int(bound.value)
        return self.moments.setdefault(offset, f"t{len(self.moments)}") if offset else "as_of"

    def element(self, tree: Element) -> str:
        """Test for an element in the values and within the bounds; None is in no set, and is excluded before bounds."""
        read, within = self.read(tree.shape), [f"x {SIGNS[b.op]} {self.edge(b)}" for b in tree.bounds]
        if tree.shape.many:
            if tree.values is not None and not within:
                return f"((v := {read}) is not None and {self.meets(tree.values)})"
            tests = [*([f"x in {_set(tree.values)}"] if tree.values is not None else []), *within]
            return f"((v := {read}) is not None and any({' and '.join(tests)} for x in v))"
        if tree.values is not None:
            tests = [f"(x := {read}) {_among(tree.values)}", *within]
            return f"({' and '.join(tests)})"
        lower = [b for b in tree.bounds if b.op in ("gt", "gte")]
        upper = [b for b in tree.bounds if b.op in ("lt", "lte")]
        if len(lower) == len(upper) == 1:
            sign = "<" if lower[0].op == "gt" else "<="
            within = [f"{self.edge(lower[0])} {sign} x {SIGNS[upper[0].op]} {self.edge(upper[0])}"]
        return f"({' and '.join([f'(x := {read}) is not None', *within])})"

    def meets(self, values: tuple[object, ...]) -> str:
        """Return the test whether the array `v` has one of the values."""
        return f"{values[0]!r} in v" if len(values) == 1 else f"not {_set(values)}.isdisjoint(v)"

    def event(self, leaf: EventLeaf) -> str:
        """Generate the function of an event leaf and return its name: one loop, and one before it for `after`."""
        name = f"event{len(self.space)}_{len(self.functions)}"
        kept, self.moments = self.moments, {}
        bounded = leaf.most is not None or leaf.sum_of is not None
        body = ["count = 0", "total = 0"]
        if leaf.after:
            body += ["earliest = None", *self.loop(leaf.after, ["if earliest is None or t < earliest: earliest = t"])]
            body += ["if earliest is None:", f"    return {leaf.holds(0, 0)}"]
        inner = ["count += 1"]
        if not bounded:
            inner.append(f"if count >= {leaf.least}: return True")
        if leaf.sum_of:
            inner.append(f"if (v := {self.read(leaf.sum_of)}) is not None: total += v")
        body += self.loop(leaf.events, inner, ["t > earliest"] if leaf.after else [])
        tests = [f"count >= {leaf.least}"] if leaf.least else []
        tests += [f"count <= {leaf.most}"] if leaf.most is not None else []
        tests += [f"total >= {leaf.sum_least}"] if leaf.sum_least is not None else []
        tests += [f"total <= {leaf.sum_most}"] if leaf.sum_most is not None else []
        body.append(f"return {' and '.join(tests) if bounded else 'False'}")
        moments = [f"{variable} = as_of + {offset}" for offset, variable in self.moments.items()]
        self.moments = kept
        self.functions.append("\n".join([f"def {name}(f, as_of):", *(f"    {line}" for line in [*moments, *body])]))
        self.space[name] = None  # reserves the name; the function replaces it
        return name

    def loop(self, events: EventSet, inner: list[str], more: Sequence[str] = ()) -> list[str]:
        """Return the loop over the facts of one set, with the lines to run for each event in it."""
        lower = self.edge(Bound("gt", -events.within, relative=True)) if events.within is not None else None
        window = f"{lower} < t <= as_of" if lower else "t <= as_of"
        tests = [window, *more]
        if not isinstance(events.where, Constant):
            tests.append(self.test(events.where))
        return [
            f"for t, p in f[{self.queries[events.event]}]:",
            f"    if {' and '.join(tests)}:",
            *(f"        {line}" for line in inner),
        ]


def _set(values: tuple[object, ...]) -> str:
    return "{" + ", ".join(map(repr, values)) + "}"


def _among(values: tuple[object, ...]) -> str:
    if len(values) > 1:
        return f"in {_set(values)}"
    return f"is {values[0]}" if isinstance(values[0], bool) else f"== {values[0]!r}"
