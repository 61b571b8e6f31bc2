"""Rows on events: windows, properties, sums, order."""

from __future__ import annotations

from tests.conformance.population import DAY, NOW, Person
from tests.conformance.rows import Group, coupons, orders

GROUPS: dict[str, Group] = {
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
            ("last_order_at: {exists: false}", "never"),
            ("orders_count: 0", "never"),
            ("orders_count: {lt: 3}", "now future edge inside both never"),
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
                """
                all: [event: {name: Order Completed, where: {departments: DELI}}]
                none: [event: {name: Order Completed, where: {departments: SEAFOOD}}]
                """,
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
            (
                "event: {name: Order Completed, where: {items: {gt: 5, lt: 3}}, count: 0}",
                "deli sea late wrong empty typed",
            ),
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
            (
                "none: [event: {name: Order Completed, within: 30d, sum: {of: value, gt: 200}}]",
                "exact old future nothing refund",
            ),
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
            (
                "event: {name: Order Completed, count: 0, after: {name: Coupon Redeemed}}",
                "before same soon coming alone",
            ),
            ("event: {name: Order Completed, after: {name: Order Completed}}", "old"),
            ("none: [event: {name: Order Completed, after: {name: Coupon Redeemed}}]", "before same soon coming alone"),
        ),
    ),
}
