from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from engine.predicate.compile_elastic import LONGEST_TERM, elastic_document
from engine.predicate.compiled import CompiledPredicate, EventQuery, compile_predicate
from engine.predicate.parse import parse_predicate
from engine.yamlfile.nodes import parse
from tests.conformance.population import COUPON, DAY, NOW, ORDER, Person, catalogue_of

CATALOGUE = catalogue_of("grocer")
NOTHING = {"$nor": [{}]}


def compiled(text: str, *, summaries: bool = True) -> CompiledPredicate:
    tree = parse_predicate(parse(text, "c.yaml"), CATALOGUE, ("audience",))
    return compile_predicate(tree, CATALOGUE, summaries=summaries)


def row_of(person: Person):
    return CATALOGUE.row(person.document(CATALOGUE, "u"))


LAPSED = """
all:
  - orders_count: {gte: 3}
  - last_order_at: {older_than: 14d}
  - any: [list: vip, s: {eq: {field: s2}}]
none:
  - event: {name: Coupon Redeemed, within: 30d}
"""


def test_a_predicate_lists_the_names_in_it() -> None:
    predicate = compiled(LAPSED)
    assert predicate.fields == {"orders_count", "last_order_at", "s", "s2"}
    assert predicate.events == {COUPON}
    assert predicate.lists == {"vip"}
    assert predicate.index_paths[:2] == ("g.orders_count", "g.last_order_at")


def test_each_indexable_path_has_the_condition_of_its_index_query() -> None:
    predicate = compiled("{all: [{i: {gte: 3}}, {i: {lt: 9}}, {s: x}, {any: [{i: 1}, {s: z}]}]}")
    filters = predicate.index_filters(0)
    assert tuple(filters) == predicate.index_paths
    assert {path: json.dumps(query).count(path) for path, query in filters.items()} == {"a.i": 2, "a.s": 1}
    assert compiled("{any: [{i: 3}, {s: x}]}").index_filters(0) == {}
    ever = compiled("event: {name: Coupon Redeemed, within: 7d}").index_filters(1_000_000_000)
    assert all(path.startswith("e.Coupon Redeemed.") for path in ever)
    assert ever


def test_events_in_a_window_are_slow_and_fields_lists_and_ever_are_quick() -> None:
    assert compiled(LAPSED).cost == "slow"
    assert compiled("{i: 3, list: vip, event: {name: Coupon Redeemed}}").cost == "quick"
    assert compiled("event: {name: Order Completed, where: {coupon: x}}").cost == "slow"


def test_an_event_is_queried_once_with_the_longest_window_and_all_properties() -> None:
    predicate = compiled(
        """
        any:
          - event: {name: Order Completed, within: 7d, where: {coupon: x}}
          - event: {name: Order Completed, within: 30d, sum: {of: value, gt: 3}}
          - event: {name: Coupon Redeemed, within: 1d, after: {name: Order Completed, within: 2d}}
        """
    )
    assert predicate.event_queries == (
        EventQuery(ORDER, timedelta(days=30), ("coupon", "value")),
        EventQuery(COUPON, timedelta(days=1), ()),
    )
    assert predicate.event_queries[0].mongo(NOW) == {"n": ORDER, "t": {"$gt": NOW - 30 * DAY}}


def test_a_required_list_serves_the_predicate() -> None:
    assert compiled('{list: "27", i: 3}').required_lists == ("27",)
    assert compiled("any: [list: a, list: b]").required_lists == ()


@pytest.mark.parametrize(
    ("text", "holds"), [("all: []", True), ("none: [all: []]", False), ("i: {gt: 5, lt: 2}", False)]
)
def test_a_constant_answer_is_known_without_a_store(text: str, holds: bool) -> None:
    predicate = compiled(text)
    for answer in (predicate.mongo(NOW), predicate.elastic(NOW)):
        assert answer.exact
        assert answer.holds is holds
    assert predicate.mongo(NOW).filter == ({} if holds else NOTHING)


def test_an_inexact_leaf_widens_under_none() -> None:
    windowed = compiled("event: {name: Order Completed, within: 30d, where: {coupon: x}}")
    negated = compiled("none: [event: {name: Order Completed, within: 30d, where: {coupon: x}}]")
    assert not windowed.mongo(NOW).exact
    assert windowed.mongo(NOW).filter != {}
    assert not negated.mongo(NOW).exact
    assert negated.mongo(NOW).filter == {}
    assert negated.elastic(NOW).filter == {"match_all": {}}


def test_an_event_ever_is_exact_on_every_store() -> None:
    predicate = compiled("event: {name: Coupon Redeemed}")
    assert predicate.mongo(NOW).exact
    assert predicate.mongo(NOW).filter == {"e.Coupon Redeemed.first": {"$lte": NOW}}
    assert predicate.elastic(NOW).exact
    assert predicate.elastic(NOW).filter == {"range": {"t.e:Coupon Redeemed:first": {"lte": NOW}}}


def test_filters_name_no_id_so_a_key_range_can_be_added() -> None:
    assert "_id" not in str(compiled(LAPSED + "  - user_id: x\n").mongo(NOW).filter)


def test_without_summaries_an_event_ever_needs_the_facts() -> None:
    predicate = compiled("event: {name: Order Completed}", summaries=False)
    row = row_of(Person(events=[(ORDER, NOW - DAY, {})]))
    assert predicate.event_queries == (EventQuery(ORDER, None, ()),)
    assert predicate.maybe(row, NOW) is None
    assert predicate.matches(row, [[(NOW - DAY, {})]], NOW)
    assert not predicate.matches(row, [[]], NOW)


@pytest.mark.parametrize(
    ("text", "flips"),
    [
        ("t: {older_than: 14d}", [NOW + 14 * DAY]),
        ("t: {within: 1d}", [NOW, NOW + DAY]),
        ("t: {within_next: 1d}", [NOW - DAY, NOW]),
        ("t: {gte: 2026-01-01}", []),
        ("{t: {older_than: 14d}, i: 99}", []),
        ("any: [t: {older_than: 14d}, i: 1]", []),
        ("event: {name: Coupon Redeemed}", [NOW + 5]),
        ("event: {name: Order Completed, within: 7d}", [NOW - 3, NOW - 3 + 7 * DAY]),
    ],
)
def test_an_answer_flips_at_exactly_these_moments(text: str, flips: list[int]) -> None:
    predicate = compiled(text)
    person = Person({"t": NOW, "i": 1}, [(ORDER, NOW - 3, {}), (COUPON, NOW + 5, {})])
    row, facts = row_of(person), person.facts(predicate)
    found, at = [], NOW - 100 * DAY
    while (flip := predicate.next_flip(row, facts, at)) is not None:
        found.append(flip)
        assert predicate.matches(row, facts, flip - 1) is not predicate.matches(row, facts, flip)
        at = flip
    assert found == flips


def test_a_window_has_two_crossing_sets_and_a_literal_time_none() -> None:
    crossings = compiled("t: {within: 1d}").crossings(NOW - 10, NOW)
    assert {crossing.collection for crossing in crossings} == {"users"}
    assert [str(crossing.elastic) for crossing in crossings] == [
        str({"range": {"t.a:t": {"gt": NOW - 10 - DAY, "lte": NOW - DAY}}}),
        str({"range": {"t.a:t": {"gt": NOW - 10, "lte": NOW}}}),
    ]
    assert compiled("t: {gt: 2026-01-01}").crossings(NOW - 10, NOW) == ()


def test_the_crossings_of_an_event_are_queried_from_the_events() -> None:
    crossings = compiled("none: [event: {name: Order Completed, within: 1d}]").crossings(NOW - 10, NOW)
    assert [crossing.mongo for crossing in crossings] == [
        {"w": "grocer", "n": ORDER, "t": {"$gt": NOW - 10, "$lte": NOW}},
        {"w": "grocer", "n": ORDER, "t": {"$gt": NOW - 10 - DAY, "$lte": NOW - DAY}},
    ]


def test_an_explanation_shows_each_leaf_with_its_data() -> None:
    predicate = compiled(
        """
        all: [d: {gt: 200}, t: {older_than: 1d}, list: vip, event: {name: Order Completed, within: 30d}]
        none: [b: true, event: {name: Coupon Redeemed}]
        """
    )
    person = Person({"d": 19_999, "t": NOW - DAY, "b": True}, [(ORDER, NOW - 3, {})], ["new"])
    explanation = predicate.explain(row_of(person), person.facts(predicate), NOW)
    assert [(leaf.where, leaf.held, leaf.failed) for leaf in explanation] == [
        ("audience.all[0].d", False, True),
        ("audience.all[1].t", True, False),
        ("audience.all[2].list", False, True),
        ("audience.all[3].event", True, False),
        ("audience.none[0].b", True, True),
        ("audience.none[1].event", False, False),
    ]
    assert [leaf.data for leaf in explanation] == [
        "d is 199.99",
        "t is 2026-11-30T00:00:00.000Z",
        "lists are new",
        "1 Order Completed considered, the last at 2026-11-30T23:59:59.997Z",
        "b is true",
        "no Coupon Redeemed is stored",
    ]
    assert explanation[0].text == "d: {gt: 200}"


TRUE, FALSE, MISSING = {"b": True}, {"b": False}, {}


@pytest.mark.parametrize(
    ("audience", "person", "expected"),
    [
        ("all: [b: true]", TRUE, ["passes  b: true"]),
        ("all: [b: true]", FALSE, ["fails   b: true"]),
        ("all: [b: true]", MISSING, ["fails   b: true"]),
        ("none: [b: true]", TRUE, ["fails   not b: true"]),
        ("none: [b: true]", FALSE, ["passes  not b: true"]),
        ("none: [b: true]", MISSING, ["passes  not b: true"]),
        ("any: [b: true, s: x]", TRUE, ["passes  b: true", "unmet   s: x"]),
        ("any: [b: true, s: x]", FALSE, ["fails   b: true", "fails   s: x"]),
        ("any: [b: true, s: x]", MISSING, ["fails   b: true", "fails   s: x"]),
        ("none: [all: [b: true, s: x]]", TRUE, ["unmet   not b: true", "passes  not s: x"]),
        ("none: [all: [b: true, s: x]]", TRUE | {"s": "x"}, ["fails   not b: true", "fails   not s: x"]),
        ("none: [any: [b: true, s: x]]", TRUE, ["fails   not b: true", "passes  not s: x"]),
        ("none: [none: [b: true]]", TRUE, ["passes  b: true"]),
        ("none: [none: [b: true]]", MISSING, ["fails   b: true"]),
        ("all: [any: [b: true, s: x], i: 1]", TRUE, ["passes  b: true", "unmet   s: x", "fails   i: 1"]),
    ],
)
def test_an_explanation_is_true_in_every_group(audience: str, person: dict[str, object], expected: list[str]) -> None:
    predicate = compiled(audience)
    row = row_of(Person(person))
    results = predicate.explain(row, (), NOW)
    assert [leaf.sentence for leaf in results] == expected
    assert any(leaf.failed for leaf in results) is not predicate.matches(row, (), NOW)
    assert all(("is missing" in leaf.data) == ("b" not in person) for leaf in results if leaf.text == "b: true")


def test_many_threads_may_share_one_predicate() -> None:
    predicate = compiled(LAPSED)
    row = row_of(Person({"s": "x", "s2": "x"}))

    def ask(_: int) -> int:
        return len(predicate.explain(row, [[]], NOW)) + predicate.matches(row, [[]], NOW)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(64))) == {5}


def test_an_indexed_user_holds_only_values_of_the_declared_type() -> None:
    person = Person(
        {"s": "a", "f": "Ä", "i": "3", "n": -0.0, "d": 5, "b": True, "t": 7, "ss": [1, "x"], "is": []},
        [(COUPON, 3, {}), (COUPON, 9, {})],
        ["vip"],
    )
    document = person.document(CATALOGUE, "u 1")
    indexed = elastic_document(CATALOGUE, document)
    key = document["_id"]
    assert indexed == {
        "w": "grocer",
        "h": key.split("/")[1],
        "user_id": key,
        "rev": document["rev"],
        "deleted": False,
        "lists": ["vip"],
        "k": {"u:user_id": "u 1", "a:s": "a", "a:f": "ä", "a:ss": ["x"]},
        "i": {"a:d": 5, "g:orders_count": 0, "g:orders_value": 0, "e:Coupon Redeemed:n": 2},
        "n": {"a:n": 0.0},
        "t": {"a:t": 7, "e:Coupon Redeemed:first": 3, "e:Coupon Redeemed:last": 9},
        "b": {"a:b": True},
    }
    assert str(indexed["n"]) == "{'a:n': 0.0}"


def test_a_text_longer_than_a_term_is_cut_between_characters() -> None:
    indexed = elastic_document(CATALOGUE, Person({"s": "aé" * 20_000}).document(CATALOGUE, "u"))
    text = indexed["k"]["a:s"]  # type: ignore[index]  # an object
    assert LONGEST_TERM - 2 <= len(text.encode()) <= LONGEST_TERM
