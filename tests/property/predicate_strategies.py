"""Random predicates and people for the property tests of the predicate language.

Values come from small pools of edges (one millisecond around a window, 2^53 + 1, an empty text, another type), so that
two random things often meet.
"""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st

from engine.catalogue.catalogue import Catalogue
from engine.clock import format_instant
from engine.errors import Mark
from engine.predicate.compiled import CompiledPredicate, compile_predicate
from engine.predicate.parse import parse_predicate
from engine.yamlfile.nodes import Node, Plain
from tests.conformance.population import COUPON, DAY, NOW, ORDER, Person
from tests.conformance.walk import FIELDS, PROPERTIES

TEXTS = ["", "a", "A", "ab", "b", "ä", "Ä", "a\u0308", "ß", "ss", "SS", "a.*", "^a", "\U0001f600", "\uffff", "a\0"]
TEXTS += ["İ", "z"]
WHOLES = [-(2**63), -2, -1, 0, 1, 2, 3, 2**31, 2**53, 2**53 + 1, 2**63 - 1]
NUMBERS = [-1.5, -0.0, 0.0, 5e-324, 0.1, 1.0, 2.0, 2.5, 2.0**53, 1.7976931348623157e308]
CENTS = [-100, 0, 1, 99, 100, 101, 20_000, 20_001]
LENGTHS = ["1ms", "1s", "1d", "2d", "30d"]
SHIFTS = [0, 1, 1000, DAY, 2 * DAY, 30 * DAY]
TIMES = sorted({NOW + sign * shift + nudge for shift in SHIFTS for sign in (-1, 1) for nudge in (-1, 0, 1)} | {0})
WRONG: list[Any] = [None, True, 1, 1.0, "1", [], {}, ["a"], [1], [[1]], float("nan"), float("inf"), "2026-12-01"]
POOLS: dict[str, list[Any]] = {
    "string": TEXTS, "folded": TEXTS, "integer": WHOLES, "number": NUMBERS, "decimal": CENTS, "boolean": [True, False],
    "time": TIMES,
}  # fmt: skip
COMPARABLE = {"s": ["s2"], "i": ["i2", "n"], "n": ["n2", "i"], "d": ["d2", "orders_value"], "b": ["b2"],
              "t": ["t2", "last_order_at"]}  # fmt: skip


def person(rnd: random.Random) -> Person:
    """Return a random user with up to six events."""
    attributes: dict[str, Any] = {}
    for name, (kind, many) in FIELDS.items():
        chance = rnd.random()
        if name in ("orders_count", "last_order_at", "orders_value") or chance < 0.2:
            continue
        if chance < 0.35:
            attributes[name] = rnd.choice(WRONG)
        elif many:
            attributes[name] = rnd.choices(POOLS[kind] if rnd.random() < 0.8 else WRONG, k=rnd.randrange(4))
        else:
            attributes[name] = rnd.choice(POOLS[kind])
    events = [(rnd.choice([ORDER, ORDER, COUPON]), rnd.choice(TIMES), properties(rnd)) for _ in range(rnd.randrange(7))]
    return Person(attributes, events, [name for name in ("vip", "new") if rnd.random() < 0.4])


def properties(rnd: random.Random) -> dict[str, Any]:
    """Return random properties of an order."""
    drawn: dict[str, Any] = {}
    for name, (kind, many) in PROPERTIES.items():
        chance = rnd.random()
        if chance < 0.4:
            pool = POOLS[kind] if chance < 0.33 else WRONG
            drawn[name] = rnd.choices(pool, k=rnd.randrange(3)) if many and chance < 0.38 else rnd.choice(pool)
    return drawn


def people(seed: int, number: int) -> dict[str, Person]:
    """Return the population that a seed determines."""
    rnd = random.Random(seed)
    return {f"u{place}": person(rnd) for place in range(number)}


def literals(kind: str) -> st.SearchStrategy[Any]:
    if kind == "decimal":
        return st.sampled_from(CENTS).map(lambda cents: f"{cents / 100:.2f}")
    if kind == "time":
        return st.sampled_from(TIMES).map(format_instant)
    return st.sampled_from(POOLS[kind])


@st.composite
def conditions(draw: st.DrawFn, name: str, kind: str, *, of_field: bool) -> Any:
    """Draw a literal, or up to three operators."""
    if draw(st.integers(0, 3)) == 0:
        return draw(literals(kind))
    ops = ["eq", "ne", "exists"]
    if kind != "boolean":
        ops += ["in", "not_in", "gt", "gte", "lt", "lte"]
    if kind in ("string", "folded"):
        ops.append("prefix")
    if kind == "time" and of_field:
        ops += ["older_than", "within", "within_next"] * 2
    conditions_: dict[str, Any] = {}
    for op in draw(st.lists(st.sampled_from(ops), min_size=1, max_size=3, unique=True)):
        if op == "exists":
            conditions_[op] = draw(st.booleans())
        elif op in ("in", "not_in"):
            conditions_[op] = draw(st.lists(literals(kind), min_size=1, max_size=3))
        elif op in ("older_than", "within", "within_next"):
            conditions_[op] = draw(st.sampled_from(LENGTHS))
        elif of_field and op != "prefix" and name in COMPARABLE and draw(st.integers(0, 3)) == 0:
            conditions_[op] = {"field": draw(st.sampled_from(COMPARABLE[name]))}
        else:
            conditions_[op] = draw(literals(kind))
    return conditions_


@st.composite
def event_sets(draw: st.DrawFn) -> dict[str, Any]:
    drawn: dict[str, Any] = {"name": draw(st.sampled_from([ORDER, ORDER, COUPON]))}
    if draw(st.booleans()):
        drawn["within"] = draw(st.sampled_from(LENGTHS))
    if drawn["name"] == ORDER and draw(st.integers(0, 2)) == 0:
        names = draw(st.lists(st.sampled_from(sorted(PROPERTIES)), min_size=1, max_size=2, unique=True))
        drawn["where"] = {n: draw(conditions(n, PROPERTIES[n][0], of_field=False)) for n in names}
    return drawn


def intervals(edges: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(["eq", "gt", "gte", "lt", "lte"]), edges, min_size=1, max_size=2)


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    drawn = draw(event_sets())
    if draw(st.integers(0, 2)) == 0:
        drawn["count"] = draw(st.one_of(st.integers(0, 3), intervals(st.integers(0, 3))))
    if drawn["name"] == ORDER and draw(st.integers(0, 2)) == 0:
        of = draw(st.sampled_from(["value", "items"]))
        drawn["sum"] = {"of": of, **draw(intervals(literals(PROPERTIES[of][0])))}
    if draw(st.integers(0, 2)) == 0:
        drawn["after"] = draw(event_sets())
    return {"event": drawn}


@st.composite
def field_leaves(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from([*FIELDS, "t", "t", "last_order_at"]))
    return {name: draw(conditions(name, FIELDS[name][0], of_field=True))}


def predicates() -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for trees of up to a dozen leaves, as plain YAML."""
    lists = st.sampled_from(["vip", "new"]).map(lambda name: {"list": name})
    leaf = st.one_of(field_leaves(), field_leaves(), events(), lists)

    def groups(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
        parts = st.lists(inner, min_size=1, max_size=3)
        return st.dictionaries(st.sampled_from(["all", "any", "none"]), parts, min_size=1, max_size=2)

    return st.recursive(leaf, groups, max_leaves=8)


def node_of(value: Plain) -> Node:
    """Return a node as the YAML reader makes it."""
    mark = Mark("campaigns/random.yaml", 1, 1)
    if isinstance(value, dict):
        return Node(mark, {key: node_of(item) for key, item in value.items()}, dict.fromkeys(value, mark))
    if isinstance(value, list):
        return Node(mark, [node_of(item) for item in value])
    return Node(mark, value, quoted=isinstance(value, str))


def compiled(plain: dict[str, Any], catalogue: Catalogue) -> CompiledPredicate:
    return compile_predicate(parse_predicate(node_of(plain), catalogue), catalogue)
