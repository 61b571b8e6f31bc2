"""The conformance table: (predicate, users, who matches), worked out by hand from `docs/predicates.md`.

Each group has its own few people in a workspace of its own. A row is a predicate in YAML and the names, in any order.
The tests also ask for `none: [predicate]` and expect everybody else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.conformance.population import COUPON, DAY, NOW, ORDER, Person

BIG = 2**53
NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Group:
    people: dict[str, Person]
    rows: tuple[tuple[str, str], ...]


def having(field: str, **values: Any) -> dict[str, Person]:
    """People whose attribute `field` holds these values."""
    return {name: Person({field: value}) for name, value in values.items()}


def orders(*times: int, **properties: Any) -> list[tuple[str, int, dict[str, Any]]]:
    return [(ORDER, t, properties) for t in times]


def coupons(*times: int) -> list[tuple[str, int, dict[str, Any]]]:
    return [(COUPON, t, {}) for t in times]


GROUPS: dict[str, Group] = {
    "text": Group(
        having("s", a="apple", cap="Apple", b="banana", empty="", digits="30", null=None, number=30, array=["apple"])
        | {"absent": Person(), "object": Person({"s": {"x": 1}}), "truth": Person({"s": True})},
        (
            ("s: apple", "a"),
            ('s: ""', "empty"),
            ('s: "30"', "digits"),
            ("s: {exists: true}", "a cap b empty digits"),
            ("s: {exists: false}", "null number array absent object truth"),
            ("s: {ne: apple}", "cap b empty digits"),
            ("s: {in: [apple, banana]}", "a b"),
            ("s: {not_in: [apple, banana]}", "cap empty digits"),
            ("s: {gt: apple}", "b"),
            ("s: {gte: Apple, lt: apple}", "cap"),
            ('s: {lte: ""}', "empty"),
            ('s: {prefix: ""}', "a cap b empty digits"),
            ("s: {prefix: a}", "a"),
            ("s: {prefix: a, ne: apple}", ""),
            ("s: {eq: apple, in: [banana]}", ""),
            ("none: [s: {ne: apple}]", "a null number array absent object truth"),
        ),
    ),
    "prefix": Group(
        having("s", dot="a.b", other="axb", star="a*", caret="^a", wide="a\U0001f600b", top="a\U0010ffffz", edge="a\ud7ffx"),
        (
            ('s: {prefix: "a."}', "dot"),
            ('s: {prefix: "a*"}', "star"),
            ('s: {prefix: "^"}', "caret"),
            ('s: {prefix: "a\U0001f600"}', "wide"),
            ('s: {prefix: "a\\U0010FFFF"}', "top"),
            ('s: {prefix: "\\U0010FFFF"}', ""),
            ('s: {prefix: "a\ud7ff"}', "edge"),
            # Order is by code point: an emoji above everything of the basic plane.
            ('s: {gt: "a\\uFFFD"}', "wide top"),
        ),
    ),
    "case": Group(
        having(
            "f", low="strasse", up="STRASSE", sharp="Straße", greek="ΣΊΣΥΦΟΣ", greek2="σίσυφος", composed="CAFÉ",
            decomposed="cafe\u0301", empty="", turkish="İ", number=1,
        ),  # fmt: skip
        (
            ("f: strasse", "low up sharp"),
            ("f: straße", "low up sharp"),
            ("f: {in: [ΣΊΣΥΦΟς]}", "greek greek2"),
            ("f: café", "composed decomposed"),
            ("f: {prefix: STR}", "low up sharp"),
            ("f: {ne: STRASSE}", "greek greek2 composed decomposed empty turkish"),
            ('f: {eq: "i̇"}', "turkish"),
            ("f: {exists: false}", "number"),
            ("f: {gte: STRASSE, lte: Strasse}", "low up sharp"),
        ),
    ),
    "integer": Group(
        having(
            "i", zero=0, one=1, minus=-1, big=BIG, big1=BIG + 1, top=2**63 - 1, low=-(2**63), double=1.0, half=1.5,
            text="1", truth=True, false=False, array=[1], null=None,
        ),  # fmt: skip
        (
            ("i: 1", "one"),
            ("i: 0", "zero"),
            ("i: {gte: 0}", "zero one big big1 top"),
            ("i: {gt: 0, lt: 9007199254740993}", "one big"),
            ("i: 9007199254740993", "big1"),
            ("i: {gt: 9007199254740992}", "big1 top"),
            ("i: 9223372036854775807", "top"),
            ("i: {lt: -9223372036854775807}", "low"),
            ("i: {gt: 9223372036854775807}", ""),
            ("i: {not_in: [0, 1]}", "minus big big1 top low"),
            ("i: {exists: true}", "zero one minus big big1 top low"),
            ("i: {ne: 1, lt: 2}", "zero minus low"),
        ),
    ),
    "number": Group(
        having(
            "n", zero=0.0, minus=-0.0, tenth=0.1, one=1.0, whole=1, huge=1.7976931348623157e308, tiny=5e-324, nan=NAN,
            inf=INF, ninf=-INF, text="1.0", truth=True, big=float(BIG),
        ),  # fmt: skip
        (
            ("n: 1", "one"),
            ("n: 0", "zero minus"),
            ("n: {gte: 0}", "zero minus tenth one huge tiny big"),
            ("n: {gt: 0}", "tenth one huge tiny big"),
            ("n: {lt: 0.1}", "zero minus tiny"),
            ("n: {in: [0.1, 1.0]}", "tenth one"),
            ("n: {exists: false}", "whole nan inf ninf text truth"),
            ("n: {ne: 1}", "zero minus tenth huge tiny big"),
            ("n: {gte: 9007199254740992}", "huge big"),
        ),
    ),
    "decimal": Group(
        having("d", exact=20_000, above=20_001, cent=1, negative=-150, zero=0, double=200.0, text="200"),
        (
            ("d: 200", "exact"),
            ('d: "200.00"', "exact"),
            ("d: {gt: 200}", "above"),
            ("d: {gt: 199.99, lte: 200.01}", "exact above"),
            ("d: {lt: 0.01}", "negative zero"),
            ("d: -1.5", "negative"),
            ("d: {exists: false}", "double text"),
        ),
    ),
    "boolean": Group(
        having("b", yes=True, no=False, one=1, zero=0, text="true", array=[True], null=None),
        (
            ("b: true", "yes"),
            ("b: false", "no"),
            ("b: {ne: true}", "no"),
            ("b: {exists: false}", "one zero text array null"),
            ("none: [b: true]", "no one zero text array null"),
        ),
    ),
    "time": Group(
        having(
            "t", now=NOW, before=NOW - 1, after=NOW + 1, day=NOW - DAY, day_in=NOW - DAY + 1, day_out=NOW - DAY - 1,
            next=NOW + DAY, next_out=NOW + DAY + 1, text="2026-12-01", double=float(NOW), null=None,
        )
        | {"absent": Person()},  # fmt: skip
        (
            ("t: {within: 1d}", "now before day_in"),
            ("t: {older_than: 1d}", "day day_out"),
            ("t: {older_than: 0s}", "now before day day_in day_out"),
            ("t: {within_next: 1d}", "after next"),
            ("t: {within: 1d, within_next: 1d}", ""),
            ("t: {within: 1d, ne: 2026-12-01}", "before day_in"),
            ("t: 2026-12-01", "now"),
            ("t: 2026-12-01T00:00:00Z", "now"),
            ("t: 2026-12-01T08:00+08:00", "now"),
            ("t: {lt: 2026-11-30T19:00:00.000-05:00}", "before day day_in day_out"),
            ("t: {in: [2026-12-01, 2026-11-30]}", "now day"),
            ("t: {in: [2026-12-01, 2026-11-30], within: 1d}", "now"),
            ("t: {gt: 2026-11-30, within: 2d}", "now before day_in"),
            ("t: {gt: 2026-11-30, gte: 2026-12-01, within: 2d, lt: 2027-01-01}", "now"),
            ("t: {exists: false}", "text double null absent"),
            ("none: [t: {within: 1d}]", "after day day_out next next_out text double null absent"),
        ),
    ),
    "array": Group(
        having(
            "ss", ab=["a", "b"], a=["a"], empty=[], none=None, blank=[""], mixed=[1, "a", None], wrong=[1, 2],
            scalar="a", nested=[["a"]], z=["z"],
        ),  # fmt: skip
        (
            ("ss: a", "ab a mixed"),
            ("ss: {in: [b, z]}", "ab z"),
            ("ss: {ne: a}", "blank z"),
            ("ss: {not_in: [a, z]}", "blank"),
            ("ss: {exists: true}", "ab a blank mixed z"),
            ("ss: {exists: false}", "empty none wrong scalar nested"),
            ('ss: ""', "blank"),
            ("ss: {gt: a, lt: z}", "ab"),
            ("ss: {eq: a, ne: b}", "a mixed"),
        ),
    ),
    "elements": Group(
        having(
            "is", spread=[1, 9], middle=[5], edge=[BIG + 1], mixed=[5.0, "5", True, 7], truth=[True], nested=[[5]],
            empty=[],
        ),  # fmt: skip
        (
            ("is: {gt: 2, lt: 8}", "middle mixed"),
            ("is: {gte: 9, lte: 9}", "spread"),
            ("is: {in: [1, 5], gt: 2}", "middle"),
            ("is: {in: [1, 5, 7], gt: 1, lt: 7}", "middle"),
            ("is: 1", "spread"),
            ("is: {ne: 5}", "spread edge mixed"),
            ("is: 9007199254740993", "edge"),
            ("is: 9007199254740992", ""),
            ("is: {exists: true}", "spread middle edge mixed"),
        ),
    ),
    "doubles": Group(
        having("ns", ok=[0.5, 2.5], nan=[NAN], partly=[NAN, 3.0, INF], whole=[1, 2], zero=[-0.0]),
        (
            ("ns: {gt: 1, lt: 3}", "ok"),
            ("ns: {gte: 3}", "partly"),
            ("ns: 0.0", "zero"),
            ("ns: {exists: true}", "ok partly zero"),
            ("ns: {not_in: [0.5]}", "partly zero"),
        ),
    ),
    "folded": Group(
        having("fs", both=["VIP", "New"], low=["vip"], sharp=["STRASSE", 5], empty=[]),
        (
            ("fs: Vip", "both low"),
            ("fs: straße", "sharp"),
            ("fs: {ne: vIP}", "sharp"),
            ("fs: {prefix: V, ne: new}", "low"),
        ),
    ),
    "fields": Group(
        {
            "less": Person({"i": 1, "i2": 2, "n": 1.0, "t": NOW - 1, "t2": NOW, "s": "a", "s2": "b", "d": 1, "d2": 2}),
            "same": Person({"i": 2, "i2": 2, "n": 2.0, "t": NOW, "t2": NOW, "s": "b", "s2": "b", "d": 2, "d2": 2}),
            "more": Person({"i": BIG + 1, "i2": BIG, "n": float(BIG), "t": NOW + 1, "t2": NOW, "s": "c", "s2": "b"}),
            "left": Person({"i": 1, "s": "a"}),
            "right": Person({"i2": 1, "s2": "a"}),
            "wrong": Person({"i": True, "i2": False, "s": 2, "s2": 1, "n": NAN, "t": [NOW - 1], "t2": [NOW]}),
            "neither": Person(),
        },
        (
            ("i: {lt: {field: i2}}", "less"),
            ("i: {eq: {field: i2}}", "same"),
            ("i: {ne: {field: i2}}", "less more"),
            ('i: {gt: {field: "n"}}', "more"),
            ("n: {lte: {field: i}}", "less same more"),
            ("t: {gte: {field: t2}}", "same more"),
            ("s: {lt: {field: s2}}", "less"),
            ("d: {lte: {field: d2}}", "less same"),
            ("none: [i: {lt: {field: i2}}]", "same more left right wrong neither"),
            ("i: {gte: {field: i2}, lt: 3}", "same"),
        ),
    ),
    "groups": Group(
        {
            "a1": Person({"s": "a", "i": 1}),
            "a2": Person({"s": "a", "i": 2}),
            "b1": Person({"s": "b", "i": 1}, lists=["vip"]),
            "none": Person({}, lists=["vip", "a b/c"]),
        },
        (
            ("all: []", "a1 a2 b1 none"),
            ("none: [all: []]", ""),
            ("{s: a, i: 1}", "a1"),
            ("{any: [s: b, i: 2], none: [list: vip]}", "a2"),
            ("any: [all: [s: a, i: 2], s: b]", "a2 b1"),
            ("none: [any: [none: [s: a]]]", "a1 a2"),
            ("none: [s: a, i: 2]", "b1 none"),
            ("none: [all: [s: a, i: 2]]", "a1 b1 none"),
            ("list: vip", "b1 none"),
            ("list: a b/c", "none"),
            ("list: VIP", ""),
            ("any: [i: {gt: 5, lt: 2}, s: b]", "b1"),
            ("all: [none: [i: {gt: 5, lt: 2}], s: a]", "a1 a2"),
            ("user_id: a1", "a1"),
            ("user_id: {prefix: a}", "a1 a2"),
        ),
    ),
    "builtin": Group(
        {
            "in": Person(more={"unsubscribed": False, "email": "A@example.org", "created_at": NOW - DAY}),
            "out": Person(more={"unsubscribed": True, "timezone": "Europe/Paris"}),
            "plain": Person(more={"email": ["a@example.org"], "first_name": ""}),
        },
        (
            ("none: [unsubscribed: true]", "in plain"),
            ("unsubscribed: false", "in"),
            ("email: A@example.org", "in"),
            ("email: a@example.org", ""),
            ("timezone: {prefix: Europe/}", "out"),
            ("created_at: {older_than: 1d}", "in"),
            ("first_name: {exists: true}", "plain"),
        ),
    ),
    "windows": Group(
        {
            "now": Person(events=orders(NOW)),
            "future": Person(events=orders(NOW + 1)),
            "edge": Person(events=orders(NOW - DAY)),
            "inside": Person(events=orders(NOW - DAY + 1)),
            "both": Person(events=orders(NOW - DAY, NOW + 1)),
            "three": Person(events=orders(NOW - 3 * DAY, NOW - 5, NOW - 1)),
            "around": Person(events=orders(NOW - 2 * DAY, NOW + 5) + orders(NOW - 7)),
            "never": Person(events=coupons(NOW - 1)),
        },
        (
            ("event: {name: Order Completed}", "now edge inside both three around"),
            ("event: {name: Order Completed, within: 1d}", "now inside three around"),
            ("none: [event: {name: Order Completed, within: 1d}]", "future edge both never"),
            ("event: {name: Order Completed, count: {gte: 2}}", "three around"),
            ("event: {name: Order Completed, within: 1d, count: {gte: 2}}", "three"),
            ("event: {name: Order Completed, count: 0}", "future never"),
            ("event: {name: Order Completed, count: {lt: 2}}", "now future edge inside both never"),
            ("event: {name: Order Completed, within: 1d, count: {lte: 1}}", "now future edge inside both around never"),
            ("event: {name: Order Completed, count: {gte: 1, lte: 1}}", "now edge inside both"),
            ("orders_count: {gte: 3}", "three around"),
            ("last_order_at: {older_than: 1d}", "edge"),
            ("last_order_at: {within_next: 1d}", "future both around"),
            ("orders_count: {exists: false}", "never"),
            ("orders_count: {lt: 3}", "now future edge inside both"),
        ),
    ),
    "where": Group(
        {
            "deli": Person(events=orders(NOW - 5, departments=["DELI", "MEAT"], value=20_000)),
            "sea": Person(events=orders(NOW - 5, departments=["DELI"]) + orders(NOW - 4, departments=["SEAFOOD"])),
            "late": Person(events=orders(NOW - 5, departments=["DELI"]) + orders(NOW + 4, departments=["SEAFOOD"])),
            "wrong": Person(events=orders(NOW - 5, departments="DELI", value="200", note=5, gift=1)),
            "empty": Person(events=orders(NOW - 5, departments=[], note="HELLO", gift=True, value=-100)),
            "typed": Person(events=orders(NOW - 5, note="hello", coupon="Hello", weight=1.5, shipped=NOW, items=3)),
        },
        (
            ("event: {name: Order Completed, where: {departments: DELI}}", "deli sea late"),
            (
                "{event: {name: Order Completed, where: {departments: DELI}},"
                " none: [event: {name: Order Completed, where: {departments: SEAFOOD}}]}",
                "deli late",
            ),
            ("event: {name: Order Completed, where: {departments: {exists: false}}}", "wrong empty typed"),
            ("event: {name: Order Completed, where: {departments: {ne: DELI}}}", "sea"),
            ("event: {name: Order Completed, where: {note: Hello}}", "empty typed"),
            ("event: {name: Order Completed, where: {coupon: hello}}", ""),
            ("event: {name: Order Completed, where: {gift: true}}", "empty"),
            ("event: {name: Order Completed, where: {value: {gte: 200}}}", "deli"),
            ("event: {name: Order Completed, where: {weight: {gt: 1}, items: 3}}", "typed"),
            ("event: {name: Order Completed, where: {shipped: 2026-12-01}}", "typed"),
            ("event: {name: Order Completed, where: {items: {gt: 5, lt: 3}}}", ""),
            ("event: {name: Order Completed, where: {items: {gt: 5, lt: 3}}, count: 0}", "deli sea late wrong empty typed"),
        ),
    ),
    "sums": Group(
        {
            "exact": Person(events=orders(NOW - 5, value=10_000) + orders(NOW - 4, value=10_000)),
            "above": Person(events=orders(NOW - 5, value=10_000) + orders(NOW - 4, value=10_001)),
            "old": Person(events=orders(NOW - 30 * DAY, value=90_000) + orders(NOW - 4, value=100)),
            "future": Person(events=orders(NOW - 1, value=100) + orders(NOW + 1, value=90_000)),
            "missing": Person(events=orders(NOW - 1) + orders(NOW - 2, value="9") + orders(NOW - 3, value=20_100)),
            "nothing": Person(),
            "refund": Person(events=orders(NOW - 1, value=-5)),
        },
        (
            ("event: {name: Order Completed, within: 30d, sum: {of: value, gt: 200}}", "above missing"),
            ("event: {name: Order Completed, within: 30d, sum: {of: value, gte: 200}}", "exact above missing"),
            ("event: {name: Order Completed, sum: {of: value, gt: 200}}", "above old missing"),
            ("event: {name: Order Completed, sum: {of: value, lte: 1}}", "future nothing refund"),
            ("event: {name: Order Completed, sum: {of: value, lt: 0}}", "refund"),
            ("event: {name: Order Completed, sum: {of: value, eq: 0}}", "nothing"),
            ("event: {name: Order Completed, count: {gte: 1}, sum: {of: value, lte: 1}}", "future refund"),
            ("event: {name: Order Completed, count: {gte: 3}, sum: {of: value, gt: 200}}", "missing"),
            ("none: [event: {name: Order Completed, within: 30d, sum: {of: value, gt: 200}}]", "exact old future nothing refund"),
        ),
    ),
    "order": Group(
        {
            "after": Person(events=coupons(NOW - 10) + orders(NOW - 5)),
            "before": Person(events=coupons(NOW - 5) + orders(NOW - 10)),
            "same": Person(events=coupons(NOW - 5) + orders(NOW - 5)),
            "between": Person(events=coupons(NOW - 9, NOW - 1) + orders(NOW - 5)),
            "soon": Person(events=coupons(NOW - 9) + orders(NOW + 1)),
            "coming": Person(events=coupons(NOW + 1) + orders(NOW + 2)),
            "old": Person(events=coupons(NOW - 40 * DAY) + orders(NOW - 39 * DAY, NOW - 2, value=100)),
            "alone": Person(events=orders(NOW - 5)),
        },
        (
            ("event: {name: Order Completed, after: {name: Coupon Redeemed}}", "after between old"),
            ("event: {name: Order Completed, after: {name: Coupon Redeemed, within: 30d}}", "after between"),
            ("event: {name: Order Completed, within: 30d, after: {name: Coupon Redeemed}}", "after between old"),
            ("event: {name: Order Completed, count: {gte: 2}, after: {name: Coupon Redeemed}}", "old"),
            ("event: {name: Order Completed, sum: {of: value, gte: 2}, after: {name: Coupon Redeemed}}", "old"),
            ("event: {name: Order Completed, count: 0, after: {name: Coupon Redeemed}}", "before same soon coming alone"),
            ("event: {name: Order Completed, after: {name: Order Completed}}", "old"),
            ("none: [event: {name: Order Completed, after: {name: Coupon Redeemed}}]", "before same soon coming alone"),
        ),
    ),
}  # fmt: skip
