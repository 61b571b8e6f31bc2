"""Events are idempotent: repeated, shuffled or resumed after any kill, they leave identical users."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

import pytest

from engine.clock import parse_instant
from engine.domain.keys import user_key
from engine.pipeline.importing.columns import Layout

HEADER = "user_id,name,time,id,value,departments\n"
DAY = 86_400_000


def rows_of(rng: random.Random, count: int, users: int) -> list[str]:
    """Return orders and redemptions of some users over 60 days; every tenth row is repeated, every fifth has no id."""
    rows: list[str] = []
    for number in range(count):
        user, day = rng.randrange(users), rng.randrange(60)
        when = f"2026-{1 + day // 30:02}-{1 + day % 28:02}T{rng.randrange(24):02}:00:00Z"
        event_id = "" if number % 5 == 0 else f"e{number}"
        if rng.random() < 0.2:
            rows.append(f"u{user},Coupon Redeemed,{when},{event_id},,\n")
        else:
            rows.append(f"u{user},Order Completed,{when},{event_id},{rng.randrange(10_000) / 100},DELI|D{day % 3}\n")
        if number % 10 == 0:
            rows.append(rows[-1])
    return rows


class Orders:
    """Return a query for orders in a window, as a predicate makes it."""

    name = "Order Completed"
    properties = ("value",)

    def __init__(self, days: int) -> None:
        self._days = days

    def mongo(self, as_of: int) -> dict[str, Any]:
        return {"n": self.name, "t": {"$gt": as_of - self._days * DAY, "$lte": as_of}}


def windows(importer: Any, users: int) -> dict[str, Any]:
    """Return windowed counts and sums of every user at some instants."""
    keys = sorted(user_key("shop", f"u{n}") for n in range(users))
    values: dict[str, Any] = {}
    for at in ("2026-01-15", "2026-02-10", "2026-03-01"):
        facts = importer.events.fetch(keys, [Orders(14), Orders(30)], parse_instant(at))
        values[at] = {
            key: [(len(membership), sum(props["value"] for _, props in membership)) for membership in lists]
            for key, lists in facts.items()
        }
    return values


def state(importer: Any, users: int) -> tuple[Any, Any, int]:
    return importer.stored_users(), windows(importer, users), importer.database["events"].count_documents({})


def recomputed(rows: Iterable[str]) -> dict[str, tuple[int, int, int, int]]:
    """Return count, sum, first and last order of each user, computed from the rows."""
    seen: set[tuple[str, ...]] = set()
    values: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        user, name, when, event_id, value, rest = row.strip().split(",")
        identity = (user, event_id) if event_id else (user, name, when, value, rest)
        if identity not in seen and name == "Order Completed":
            values.setdefault(user, []).append((parse_instant(when), round(float(value) * 100)))
        seen.add(identity)
    return {user: (len(one), sum(value for _, value in one), min(one)[0], max(one)[0]) for user, one in values.items()}


def test_repeated_shuffled_and_killed_imports_of_events_leave_identical_users(
    importer: Any, another: Any, program: Any
) -> None:
    rng = random.Random(11)
    rows = rows_of(rng, 2_000, 120)
    straight = importer.write("a.csv", HEADER + "".join(rows))
    summary = importer.run("events", straight, batch=500)
    assert summary.rows == 2_200
    assert summary.counts["repeated"] == 200
    assert summary.counts["created"] == 2_000
    expected = state(importer, 120)
    aggregates = {
        user: tuple(
            aggregates_["g"].get(name) for name in ("orders_count", "orders_value", "first_order_at", "last_order_at")
        )
        for user, aggregates_ in expected[0].items()
        if aggregates_["g"]["orders_count"]
    }
    assert aggregates == recomputed(rows)
    summary = importer.run("events", straight, batch=333)
    assert summary.counts["repeated"] == 2_200
    assert state(importer, 120) == expected

    shuffled = another()
    shuffled_rows = rows[:]
    rng.shuffle(shuffled_rows)
    shuffled.run("events", shuffled.write("b.csv", HEADER + "".join(shuffled_rows)), batch=77)
    assert state(shuffled, 120) == expected

    killed = another()
    path = killed.write("c.csv", HEADER + "".join(rows))
    for die in ({"record": 1}, {"derive": 2}, {"save": 3}, {"derive": 1}):
        program.run_and_die(killed, "events", path, order={"batch": 150}, die=die)
    program.run_and_kill(killed, "events", path, rng.randrange(1_000, 2_200), order={"batch": 50})
    killed.run("events", path, batch=150)
    assert state(killed, 120) == expected


def test_an_event_of_an_unknown_user_creates_it_with_the_id_only(importer: Any) -> None:
    importer.run("events", importer.write("a.csv", HEADER + "u1,Order Completed,2026-01-01,1,2.50,\n"))
    assert importer.stored_users() == {
        "u1": {
            "g": {
                "orders_count": 1,
                "orders_value": 250,
                "first_order_at": parse_instant("2026-01-01"),
                "last_order_at": parse_instant("2026-01-01"),
            },
            "e": {
                "Order Completed": {
                    "n": 1,
                    "first": parse_instant("2026-01-01"),
                    "last": parse_instant("2026-01-01"),
                }
            },
        }
    }
    document = importer.users.get(user_key("shop", "u1"))
    assert document["changed"][0] == "created"
    assert "event:Order Completed" in document["changed"]


def test_an_event_raises_the_revision_and_names_the_changed_fields(importer: Any) -> None:
    importer.run("users", importer.write("u.csv", "user_id,age\nu1,7\nu2,8\n"))
    before = {document["u"]: document for document in importer.database["users"].find()}
    importer.run("events", importer.write("a.csv", HEADER + "u1,Order Completed,2026-01-01,1,2.50,\n"))
    after = {document["u"]: document for document in importer.database["users"].find()}
    assert after["u1"]["rev"] > before["u1"]["rev"]
    assert set(after["u1"]["changed"]) == {
        "orders_count", "orders_value", "first_order_at", "last_order_at", "event:Order Completed"
    }  # fmt: skip
    assert after["u1"]["a"] == {"age": 7}
    assert after["u2"] == before["u2"]


def test_the_same_id_at_another_time_is_the_same_event_and_the_first_wins(importer: Any) -> None:
    rows = "".join(f"{item}\n" for item in ("u1,{0}-01,1,2.50,", "u1,{0}-05,1,9.00,", "u2,{0}-05,1,1,")).format(
        "Order Completed,2026-01"
    )
    summary = importer.run("events", importer.write("a.csv", HEADER + rows))
    assert (summary.counts["created"], summary.counts["repeated"]) == (2, 1)
    assert importer.stored_users()["u1"]["g"]["orders_value"] == 250
    assert importer.stored_users()["u2"]["g"]["orders_value"] == 100


def test_events_of_a_deleted_user_are_rejected_and_not_stored(importer: Any) -> None:
    path = importer.write(
        "a.csv", HEADER + "u1,Order Completed,2026-01-01,1,2.50,\nu2,Coupon Redeemed,2026-01-01,2,,\n"
    )
    importer.run("events", path)
    importer.users.delete(user_key("shop", "u1"))
    importer.events.erase([user_key("shop", "u1")])
    gone = importer.users.get(user_key("shop", "u1"))
    summary = importer.run("events", path)
    assert [line for line, _ in importer.rejected(summary)] == [2]
    assert importer.users.get(user_key("shop", "u1")) == gone
    assert importer.database["events"].count_documents({}) == 1


def test_events_that_arrive_during_the_deletion_of_their_user_are_removed(importer: Any) -> None:
    key = user_key("shop", "u1")
    importer.run("events", importer.write("a.csv", HEADER + "u1,Order Completed,2026-01-01,1,2.50,\n"))
    importer.users.delete(key)
    assert importer.derivation.derive([key]) == set()
    assert importer.database["events"].count_documents({}) == 0
    assert importer.users.get(key)["deleted"] is True


def test_concurrent_imports_of_events_of_the_same_users_lose_none(importer: Any, another: Any, program: Any) -> None:
    rows = rows_of(random.Random(5), 1_500, 60)
    paths = [importer.write(f"{part}.csv", HEADER + "".join(rows[part::2])) for part in range(2)]
    running = [program.start(importer, "events", path, order={"batch": 200}) for path in paths]
    ended = [process.end() for process in running]
    assert [status for _, status in ended] == [0, 0]
    ends = [json.loads(output[-1]) for output, _ in ended]
    assert sum(end["created"] for end in ends) == 1_500
    alone = another()
    alone.run("events", alone.write("all.csv", HEADER + "".join(rows)))
    assert state(importer, 60) == state(alone, 60)


def test_sums_are_exact_beyond_doubles_and_saturate_at_64_bits(importer: Any) -> None:
    big = (1 << 63) - 1
    values = [f"{big // 100}.{big % 100:02}", "0.01", "-90071992547409.93"]
    rows = "".join(f"u1,Order Completed,2026-01-01,{n},{value},\n" for n, value in enumerate(values[:1] + values[2:]))
    importer.run("events", importer.write("a.csv", HEADER + rows))
    assert importer.stored_users()["u1"]["g"]["orders_value"] == big - 9007199254740993
    importer.run("events", importer.write("b.csv", HEADER + f"u1,Order Completed,2026-01-01,9,{values[0]},\n"))
    assert importer.stored_users()["u1"]["g"]["orders_value"] == big


def test_a_new_aggregate_is_derived_for_everybody(importer: Any) -> None:
    importer.run("users", importer.write("u.csv", "user_id\n" + "".join(f"u{n}\n" for n in range(25))))
    importer.run("events", importer.write("a.csv", HEADER + "u1,Order Completed,2026-01-01,1,2.50,\n"))
    expected = importer.stored_users()
    importer.database["users"].update_many({}, {"$unset": {"g": 1}})
    touched: set[str] = set()
    for keys in importer.derivation.derive_all(7):
        touched |= keys
    assert len(touched) == 25
    assert importer.stored_users() == expected
    assert list(importer.derivation.derive_all(10)) == [set(), set(), set()]


@pytest.mark.parametrize("adjacent", [True, False])
def test_facts_are_fetched_by_query_for_the_given_users_only(importer: Any, adjacent: bool) -> None:
    rows = "".join(f"u{n},Order Completed,2026-01-{1 + n % 28:02},{n},{n},\n" for n in range(40))
    importer.run("events", importer.write("a.csv", HEADER + rows))
    keys = sorted(user_key("shop", f"u{n}") for n in range(0, 40, 2))
    facts = importer.events.fetch(keys, [Orders(7), Orders(60)], parse_instant("2026-01-31"), adjacent=adjacent)
    assert sorted(facts) == keys
    of_user = facts[user_key("shop", "u26")]
    assert of_user == ([(parse_instant("2026-01-27"), {"value": 2600})],) * 2
    assert facts[user_key("shop", "u2")] == ([], [(parse_instant("2026-01-03"), {"value": 200})])


def test_ndjson_events_in_the_form_of_a_tracking_call(importer: Any) -> None:
    values = {"userId": "u1", "event": "Order Completed", "timestamp": "2026-01-01T10:00:00+01:00", "messageId": "m"}
    lines = [json.dumps({**values, "properties": {"value": 12.5, "departments": ["DELI"]}}), json.dumps(values)]
    summary = importer.run("events", importer.write("a.ndjson", "\n".join(lines)), layout=Layout())
    assert (summary.counts["created"], summary.counts["repeated"]) == (1, 1)
    assert importer.database["events"].find_one()["p"] == {"value": 1250, "departments": ["DELI"]}
