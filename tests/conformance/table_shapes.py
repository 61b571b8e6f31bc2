"""Rows on arrays, field against field, groups, lists and built-in fields."""

from __future__ import annotations

from tests.conformance.population import DAY, NOW, Person
from tests.conformance.rows import BIG, INF, NAN, Group, having

GROUPS: dict[str, Group] = {
    "array": Group(
        having(
            "ss",
            ab=["a", "b"],
            a=["a"],
            empty=[],
            none=None,
            blank=[""],
            mixed=[1, "a", None],
            wrong=[1, 2],
            scalar="a",
            nested=[["a"]],
            z=["z"],
        ),
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
            "is",
            spread=[1, 9],
            middle=[5],
            edge=[BIG + 1],
            mixed=[5.0, "5", True, 7],
            truth=[True],
            nested=[[5]],
            empty=[],
        ),
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
}
