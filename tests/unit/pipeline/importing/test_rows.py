"""Turn rows into changes: a row has one meaning, or the import refuses it with an actionable reason."""

from __future__ import annotations

from typing import Any

import pytest

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.workspace_file import workspace_of
from engine.domain.keys import user_key
from engine.errors import WrongCall
from engine.pipeline.importing.columns import Layout, RowFaultError
from engine.pipeline.importing.rows import EventRows, ListRows, UserRows
from engine.yamlfile.nodes import parse

SHOP = """
workspace: shop
attributes:
  age: integer
  score: number
  spent: {type: decimal, scale: 2}
  vip: boolean
  joined: time
  plan: {type: string, case: ignore}
  tags: {type: string, many: true, case: ignore}
events:
  Order Completed: {value: {type: decimal, scale: 2}, departments: {type: string, many: true}}
  Coupon Redeemed: {}
aggregates:
  orders_count: {event: Order Completed, count: true}
"""


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return workspace_of(parse(SHOP, "shop.yaml"))


def user(catalogue: Catalogue, values: Any, columns: list[str] | None = None, **layout: Any) -> dict[str, Any]:
    return dict(UserRows(catalogue, columns, Layout(**layout)).read(values).fields)


def reason(catalogue: Catalogue, values: Any, columns: list[str] | None = None) -> str:
    with pytest.raises(RowFaultError) as caught:
        UserRows(catalogue, columns, Layout()).read(values)
    return str(caught.value)


def test_cells_become_values_of_the_catalogue(catalogue: Catalogue) -> None:
    columns = ["user_id", "email", "age", "score", "spent", "vip", "joined", "plan", "tags"]
    row = ["u1", "a@b.example", "7", "1.5", "12.50", "true", "2026-01-01T00:00:00Z", "Gold", "A|B"]
    assert user(catalogue, row, columns) == {
        "email": "a@b.example",
        "a.age": 7,
        "a.score": 1.5,
        "a.spent": 1250,
        "a.vip": True,
        "a.joined": 1767225600000,
        "a.plan": "Gold",
        "k.plan": "gold",
        "a.tags": ["A", "B"],
        "k.tags": ["a", "b"],
    }


def test_an_empty_cell_changes_nothing_and_an_empty_array_removes(catalogue: Catalogue) -> None:
    assert user(catalogue, ["u1", "", "[]"], ["user_id", "age", "tags"]) == {"a.tags": None, "k.tags": None}


def test_null_removes_in_ndjson_and_an_empty_text_is_a_value(catalogue: Catalogue) -> None:
    assert user(catalogue, {"user_id": "u1", "age": None, "attributes": {"plan": ""}}) == {
        "a.age": None,
        "a.plan": "",
        "k.plan": "",
    }


def test_ndjson_is_read_flat_and_nested(catalogue: Catalogue) -> None:
    flat = user(catalogue, {"user_id": "u1", "age": 3, "email": "x@y.example"})
    assert flat == user(catalogue, {"userId": "u1", "email": "x@y.example", "traits": {"age": 3}})


def test_numbers_are_accepted_as_ids(catalogue: Catalogue) -> None:
    assert ListRows(catalogue, ["user_id"], Layout()).read([17]) == user_key("shop", "17")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"age": 3}, "user_id is missing"),
        ({"user_id": ""}, "user_id is missing"),
        ({"user_id": True}, "user_id: expected a text"),
        ({"user_id": "x" * 501}, "at most 500"),
        ({"user_id": "a\tb"}, "control character"),
        ({"user_id": " a"}, "begins or ends with a space"),
        ({"user_id": "a", "age": "x"}, 'age: expected a whole number, got "x"'),
        ({"user_id": "a", "age": 1.5}, "age: expected a whole number"),
        ({"user_id": "a", "age": True}, "age: expected a whole number"),
        ({"user_id": "a", "age": 1 << 64}, "64 bits"),
        ({"user_id": "a", "score": "inf"}, "score: expected a number"),
        ({"user_id": "a", "score": float("nan")}, "finite"),
        ({"user_id": "a", "spent": "1.234"}, "more than 2 decimal places"),
        ({"user_id": "a", "vip": "yes"}, "did you mean true?"),
        ({"user_id": "a", "joined": "10000-01-01"}, "joined: expected a time"),
        ({"user_id": "a", "joined": "2026-13-01"}, "joined: expected a time"),
        ({"user_id": "a", "plan": "x" * 8001}, "at most 8000"),
        ({"user_id": "a", "plan": "a\0b"}, "NUL"),
        ({"user_id": "a", "tags": ["a\0b"]}, "NUL"),
        ({"user_id": "a", "timezone": "Europe/Berln"}, "did you mean Europe/Berlin?"),
        ({"user_id": "a", "$set": {"age": 3}}, 'has a "$"'),
        ({"user_id": "a", "a.age": 3}, "has a dot"),
        ({"user_id": "a", "agee": 3}, "did you mean age?"),
        ({"user_id": "a", "attributes": {"$where": 1}}, 'has a "$"'),
        ({"user_id": "a", "age": 3, "attributes": {"age": 4}}, "age appears twice"),
        ({"user_id": "a", "orders_count": 3}, 'no attribute "orders_count"'),
    ],
)
def test_a_wrong_row_is_refused_with_the_reason(catalogue: Catalogue, values: Any, expected: str) -> None:
    assert expected in reason(catalogue, values)


@pytest.mark.parametrize(
    ("columns", "layout", "expected"),
    [
        (["id", "age"], {}, "--map"),
        (["user_id", "agee"], {}, "did you mean age?"),
        (["user_id", "orders_count"], {}, "import the events"),
        (["user_id", "age", "age"], {}, "appears twice"),
        (["user_id", ""], {}, "has no name"),
        (["user_id"], {"mapping": {"x": "age"}}, "no such column"),
        (["user_id"], {"defaults": {"agee": "3"}}, "did you mean age?"),
        (["user_id"], {"defaults": {"user_id": "3"}}, "names its own user"),
    ],
)
def test_a_wrong_header_is_refused_at_once(
    catalogue: Catalogue, columns: list[str], layout: Any, expected: str
) -> None:
    with pytest.raises(WrongCall) as caught:
        UserRows(catalogue, columns, Layout(**layout))
    assert expected in f"{caught.value} {caught.value.remedy}"


def test_columns_are_renamed_ignored_and_given_defaults(catalogue: Catalogue) -> None:
    row = user(
        catalogue,
        ["u1", "7", "?", ""],
        ["kunde", "alter", "x", "plan"],
        mapping={"kunde": "user_id", "alter": "age"},
        ignored=frozenset({"x"}),
        defaults={"plan": "free", "vip": "false"},
    )
    assert row == {"a.age": 7, "a.plan": "free", "k.plan": "free", "a.vip": False}


def test_an_event_is_the_same_from_a_table_and_from_ndjson(catalogue: Catalogue) -> None:
    columns = ["user_id", "event", "timestamp", "value", "departments"]
    table = EventRows(catalogue, columns, Layout()).read(
        ["u1", "Order Completed", "2026-01-01T00:00:00Z", "2.50", "DELI|MEAT"]
    )
    values = {"value": "2.50", "departments": ["DELI", "MEAT"]}
    json = EventRows(catalogue, None, Layout()).read(
        {"userId": "u1", "name": "Order Completed", "time": "2026-01-01T01:00:00+01:00", "properties": values}
    )
    assert table == json
    assert table.properties == {"value": 250, "departments": ["DELI", "MEAT"]}
    assert table.at == 1767225600000


def test_only_equal_rows_without_an_id_are_one_event(catalogue: Catalogue) -> None:
    rows = EventRows(catalogue, ["user_id", "time", "value"], Layout(defaults={"name": "Order Completed"}))
    first = rows.read(["u1", "2026-01-01", "1.00"])
    assert rows.read(["u1", "2026-01-01T00:00:00Z", "1"]).id == first.id
    others = [
        ["u2", "2026-01-01", "1.00"],
        ["u1", "2026-01-02", "1.00"],
        ["u1", "2026-01-01", "1.01"],
        ["u1", "2026-01-01", ""],
    ]
    assert len({first.id, *(rows.read(other).id for other in others)}) == 5


def test_a_given_id_is_kept(catalogue: Catalogue) -> None:
    rows = EventRows(catalogue, None, Layout())
    assert rows.read({"user_id": "u", "event": "Coupon Redeemed", "time": "2026-01-01", "messageId": 7}).id == "7"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"user_id": "u", "time": "2026-01-01"}, "name is missing"),
        ({"user_id": "u", "name": "Order Complete", "time": "2026-01-01"}, "did you mean Order Completed?"),
        ({"user_id": "u", "name": "Coupon Redeemed"}, "time is missing"),
        ({"user_id": "u", "name": "Coupon Redeemed", "time": 5}, "time: expected a time"),
        (
            {"user_id": "u", "name": "Coupon Redeemed", "time": "2026-01-01", "properties": {"value": 1}},
            "has no property",
        ),
        ({"user_id": "u", "name": "Coupon Redeemed", "time": "2026-01-01", "properties": {"$inc": 1}}, 'has a "$"'),
        ({"user_id": "u", "name": "Coupon Redeemed", "time": "2026-01-01", "value": 1}, "an event has no key"),
        ({"user_id": "u", "name": "Coupon Redeemed", "event": "x", "time": "2026-01-01"}, "name appears twice"),
        (
            {"user_id": "u", "name": "Order Completed", "time": "2026-01-01", "properties": {"value": float("inf")}},
            "finite",
        ),
        ({"user_id": "u", "name": ["x"], "time": "2026-01-01"}, "no event"),
        ({"user_id": "u", "name": "Coupon Redeemed", "time": "2026-01-01", "properties": [1]}, "an event has no key"),
    ],
)
def test_a_wrong_event_is_refused_with_the_reason(catalogue: Catalogue, values: Any, expected: str) -> None:
    with pytest.raises(RowFaultError) as caught:
        EventRows(catalogue, None, Layout()).read(values)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "layout", "expected"),
    [
        (["user_id", "time"], {}, "--default name="),
        (["user_id", "name"], {}, "no column time"),
        (["user_id", "name", "time", "valu"], {}, "did you mean value?"),
        (["user_id", "time"], {"defaults": {"name": "Order"}}, "no such event"),
        (["user_id", "time", "value"], {"defaults": {"name": "Coupon Redeemed"}}, "no event has such a property"),
    ],
)
def test_a_wrong_header_of_events_is_refused(
    catalogue: Catalogue, columns: list[str], layout: Any, expected: str
) -> None:
    with pytest.raises(WrongCall) as caught:
        EventRows(catalogue, columns, Layout(**layout))
    assert expected in f"{caught.value} {caught.value.remedy}"


def test_a_list_has_user_ids_only(catalogue: Catalogue) -> None:
    with pytest.raises(WrongCall, match="only user ids"):
        ListRows(catalogue, ["user_id", "age"], Layout())
    with pytest.raises(RowFaultError, match="only user ids"):
        ListRows(catalogue, None, Layout()).read({"user_id": "u", "age": 3})
