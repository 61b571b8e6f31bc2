from __future__ import annotations

import pytest

from engine.catalogue.workspace_file import workspace_of
from engine.errors import InvalidSource
from engine.predicate.parse import parse_predicate
from engine.predicate.tree import (
    AllOf,
    AnyOf,
    Bound,
    Element,
    EventLeaf,
    Exists,
    FieldCompare,
    InList,
    Named,
    NoneOf,
    Tree,
    plain,
)
from engine.yamlfile.nodes import parse

CATALOGUE = workspace_of(
    parse(
        """
workspace: grocer
attributes:
  age: string
  level: integer
  score: number
  spent: {type: decimal, scale: 2}
  limit: {type: decimal, scale: 4}
  vip: boolean
  plan: {type: string, case: ignore}
  tags: {type: string, many: true}
  seen_at: time
events:
  Order Completed:
    value: {type: decimal, scale: 2}
    weight: number
    departments: {type: string, many: true}
    shipped: time
  Coupon Redeemed: {}
aggregates:
  orders_count: {event: Order Completed, count: true}
""",
        "conf/workspaces/grocer.yaml",
    )
)


def read(text: str) -> Tree:
    return parse_predicate(parse(text, "c.yaml"), CATALOGUE, ("audience",))


BROKEN = [
    # predicate, line:column, place, message
    ("order_count: {gte: 3}", "1:1", ".order_count", "no field is called 'order_count' (did you mean orders_count?)"),
    ("Order Completed: {}", "1:1", ".Order Completed", "did you mean event: {name: Order Completed}?"),
    ("xyzzy: 3", "1:1", ".xyzzy", "no field is called 'xyzzy'"),
    ("- level: 3", "1:1", "audience", "expected a predicate (write all: and the list under it)"),
    ("everybody", "1:1", "audience", "expected a predicate (e.g. orders_count: {gte: 3})"),
    ("all: {level: 3}", "1:6", ".all", "all takes a list of predicates (write a dash before it)"),
    ("any: []", "1:6", ".any", "any is empty"),
    ("none: []", "1:7", ".none", "none is empty"),
    ("{}", "1:1", "audience", "an empty predicate (write all: [] for all users)"),
    ("alll: []", "1:1", ".alll", "did you mean all?"),
    ("level: {gt: 3, gtee: 4}", "1:16", ".level.gtee", "no operator is called 'gtee' (did you mean gte?)"),
    ("level: {}", "1:8", ".level", "no condition (write {exists: true})"),
    ("level: {prefix: 3}", "1:9", ".level.prefix", "prefix is not for a whole number"),
    ("level: {within: 3d}", "1:9", ".level.within", "within is not for a whole number"),
    ("vip: {gt: true}", "1:7", ".vip.gt", "gt is not for a boolean"),
    ('level: "30"', "1:8", ".level", 'expected a whole number, got the text "30" (did you mean 30?)'),
    ("level: 1k", "1:8", ".level", "did you mean 1000?"),
    ("level: 1.5", "1:8", ".level", "expected a whole number, got 1.5"),
    ("level: 3.0", "1:8", ".level", "(did you mean 3?)"),
    ("level: 9223372036854775808", "1:8", ".level", "does not fit into 64 bits"),
    ("level: true", "1:8", ".level", "expected a whole number, got true"),
    ("age: 30", "1:6", ".age", 'expected text, got 30 (did you mean "30"?)'),
    ("age: null", "1:6", ".age", "write {exists: false} for a missing value"),
    ("age: [a, b]", "1:6", ".age", "write {in: [...]}"),
    ("age: {in: a}", "1:11", ".age.in", "expected a list of values (write in: [...])"),
    ("age: {in: []}", "1:11", ".age.in", "expected a list of values"),
    ("age: {in: [a, 3]}", "1:15", ".age.in[1]", "expected text, got 3"),
    ("vip: 1", "1:6", ".vip", "expected true or false, got 1 (did you mean true?)"),
    ('vip: "false"', "1:6", ".vip", "did you mean false?"),
    ("score: 9007199254740993", "1:8", ".score", "is not exact as a number"),
    ("spent: 1.234", "1:8", ".spent", "1.234 has more than 2 decimal places"),
    ("spent: cheap", "1:8", ".spent", "expected an amount such as 12.50"),
    ("spent: 123456789012345678.25", "1:8", ".spent", "is not exact (write it as a text)"),
    ("seen_at: tomorrow", "1:10", ".seen_at", "expected a time such as 2026-12-01T08:00:00Z"),
    ("seen_at: 2026-13-01", "1:10", ".seen_at", "expected a time"),
    ("seen_at: {within: 14}", "1:19", ".seen_at.within", "got 14 (did you mean 14d?)"),
    ("seen_at: {within: 2y}", "1:19", ".seen_at.within", "expected a duration such as 90s, 15m, 12h or 14d, got 2y"),
    ("seen_at: {within: 0s}", "1:19", ".seen_at.within", "a window of length zero contains nothing"),
    ("seen_at: {within: 999999999999999d}", "1:19", ".seen_at.within", "expected a duration"),
    ("vip: {exists: 1}", "1:15", ".vip.exists", "expected true or false"),
    ("level: {gt: {feld: score}}", "1:13", ".level.gt", "expected a value (or write {field: OTHER_FIELD})"),
    ("level: {gt: {field: scor}}", "1:21", ".level.gt.field", "no field is called 'scor' (did you mean score?)"),
    ("level: {gt: {field: age}}", "1:21", ".level.gt.field", "a whole number and a string do not compare"),
    ("spent: {gt: {field: limit}}", "1:21", ".spent.gt.field", "they differ in scale"),
    ("age: {gt: {field: plan}}", "1:19", ".age.gt.field", "they differ in case"),
    ("tags: {eq: {field: age}}", "1:20", ".tags.eq.field", "an array is not compared with a field"),
    ("age: {in: {field: plan}}", "1:11", ".age.in", "in does not compare two fields"),
    ("list: [a, b]", "1:7", ".list", "expected the name of one list"),
    ("list: 27", "1:7", ".list", '(write "27")'),
    ("event: Order Completed", "1:8", ".event", "write {name: Order Completed}"),
    ("event: {within: 3d}", "1:8", ".event", "the event's name is missing"),
    ("event: {name: Order Complete}", "1:15", ".event.name", "did you mean Order Completed?"),
    ("event: {name: Coupon Redeemed, witin: 3d}", "1:32", ".event.witin", "unknown key (did you mean within?)"),
    ("event: {name: Order Completed, where: [a]}", "1:39", ".event.where", "expected properties with conditions"),
    ("event: {name: Order Completed, where: {dept: X}}", "1:40", ".event.where.dept", "has no property 'dept'"),
    ("event: {name: Order Completed, where: {value: {field: spent}}}", "1:48", ".event.where.value.field", ""),
    (
        "event: {name: Order Completed, where: {value: {gt: {field: spent}}}}",
        "1:52",
        ".event.where.value.gt.field",
        "not compared with a field",
    ),
    (
        "event: {name: Order Completed, where: {shipped: {within: 3d}}}",
        "1:50",
        ".event.where.shipped.within",
        "within is not for an event property",
    ),
    ("event: {name: Order Completed, count: {gte: -1}}", "1:39", ".event.count", "a count is never negative"),
    ("event: {name: Order Completed, count: {}}", "1:39", ".event.count", "nothing to compare with"),
    ("event: {name: Order Completed, count: {ne: 3}}", "1:40", ".event.count.ne", "no comparison is called 'ne'"),
    ("event: {name: Order Completed, count: many}", "1:39", ".event.count", "expected a whole number"),
    ("event: {name: Order Completed, sum: 200}", "1:37", ".event.sum", "the property to sum is missing"),
    ("event: {name: Order Completed, sum: {of: valeu, gt: 2}}", "1:42", ".event.sum.of", "did you mean value?"),
    ("event: {name: Order Completed, sum: {of: weight, gt: 2}}", "1:42", ".event.sum.of", "sums are exact"),
    ("event: {name: Order Completed, sum: {of: value}}", "1:37", ".event.sum", "nothing to compare with"),
    ("event: {name: Order Completed, sum: {of: value, gt: 0.001}}", "1:53", ".event.sum.gt", "more than 2 decimal"),
    ("event: {name: Order Completed, after: Coupon Redeemed}", "1:39", ".event.after", "write {name: Coupon Redeemed}"),
    ("event: {name: Order Completed, after: {name: Coupn}}", "1:46", ".event.after.name", "no event is called"),
    (
        "event: {name: Order Completed, after: {name: Coupon Redeemed, count: 2}}",
        "1:63",
        ".event.after.count",
        "unknown key",
    ),
]


@pytest.mark.parametrize(("text", "place", "where", "said"), BROKEN, ids=[text for text, *_ in BROKEN])
def test_a_broken_predicate_is_refused_at_its_place(text: str, place: str, where: str, said: str) -> None:
    with pytest.raises(InvalidSource) as caught:
        read(text)
    first = caught.value.faults[0]
    assert str(first).startswith(f"c.yaml:{place}: {where if where == 'audience' else 'audience' + where}: ")
    assert said in str(first)


def test_every_mistake_is_reported_at_once_in_order() -> None:
    with pytest.raises(InvalidSource) as caught:
        read("all:\n  - levl: 3\n  - age: 4\nnone:\n  - event: {name: Nothing}\n")
    assert [fault.mark.line for fault in caught.value.faults] == [2, 3, 5]
    assert [fault.where for fault in caught.value.faults] == [
        "audience.all[0].levl",
        "audience.all[1].age",
        "audience.none[0].event.name",
    ]


def test_a_tree_is_at_most_twelve_levels_deep() -> None:
    def nested(levels: int) -> str:
        return "{all: [" * levels + "{level: 1}" + "]}" * levels

    assert read(nested(12))
    with pytest.raises(InvalidSource, match="nested deeper than 12 levels"):
        read(nested(13))


def test_a_predicate_has_at_most_500_leaves() -> None:
    with pytest.raises(InvalidSource, match="501 leaves"):
        read("any:\n" + "  - level: 1\n" * 501)


def test_a_text_to_order_by_has_at_most_256_bytes() -> None:
    assert read(f"age: {{prefix: {'é' * 128}}}")
    assert read(f"age: {'x' * 8_000}")
    with pytest.raises(InvalidSource, match="prefix takes a text of at most 256 bytes"):
        read(f"age: {{prefix: {'é' * 129}}}")


def test_a_set_has_at_most_10_000_values() -> None:
    with pytest.raises(InvalidSource, match="at most 10000 are allowed"):
        read(f"level: {{in: [{', '.join(map(str, range(10_001)))}]}}")


LEVEL, AGE = CATALOGUE.fields["level"], CATALOGUE.fields["age"]


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("level: 3", Element(LEVEL, (3,))),
        ("level: {gt: 1, gte: 3, lt: 9}", Element(LEVEL, None, (Bound("gte", 3), Bound("lt", 9)))),
        ("level: {in: [1, 2, 3], gt: 1}", Element(LEVEL, (2, 3))),
        ("age: {prefix: ab}", Element(AGE, None, (Bound("gte", "ab"), Bound("lt", "ac")))),
        ("age: {exists: false}", NoneOf((Exists(AGE),))),
        ("level: {ne: 3}", AllOf((Exists(LEVEL), NoneOf((Element(LEVEL, (3,)),))))),
        ("level: {lte: {field: score}}", FieldCompare(LEVEL, "lte", CATALOGUE.fields["score"])),
        ("{list: a, any: [list: b, list: c]}", AllOf((InList("a"), AnyOf((InList("b"), InList("c")))))),
        ("none: [none: [list: a]]", InList("a")),
    ],
)
def test_a_predicate_is_parsed_into_the_normal_form(text: str, tree: Tree) -> None:
    assert plain(read(text)) == tree


def test_a_leaf_keeps_its_text_and_place() -> None:
    tree = read("all: [{level: {gte: 3}}]")
    assert isinstance(tree, AllOf)
    leaf = tree.parts[0]
    assert isinstance(leaf, Named)
    assert (leaf.text, leaf.where) == ("level: {gte: 3}", "audience.all[0].level")


def test_an_event_without_count_or_sum_means_at_least_one() -> None:
    leaf = plain(read("event: {name: Order Completed, within: 30d}"))
    assert isinstance(leaf, EventLeaf)
    assert (leaf.least, leaf.most, leaf.events.within) == (1, None, 30 * 86_400_000)


def test_a_sum_alone_requires_no_event() -> None:
    leaf = plain(read("event: {name: Order Completed, sum: {of: value, gt: 200}}"))
    assert isinstance(leaf, EventLeaf)
    assert (leaf.least, leaf.sum_least, leaf.sum_most) == (0, 20_001, None)
