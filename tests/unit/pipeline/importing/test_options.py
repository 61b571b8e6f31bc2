"""The effect of import options on single rows, of tables and of JSON alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.catalogue.workspace_file import read_workspace
from engine.cli.import_layout import layout
from engine.errors import WrongCall
from engine.pipeline.importing.columns import RowFaultError
from engine.pipeline.importing.rows import EventRows, ListRows, UserRows

SHOP = read_workspace(Path(__file__).parents[3] / "integration" / "pipeline" / "importing" / "shop.yaml")


def read(row: dict[str, Any], *, table: bool = False, **options: Any) -> dict[str, Any] | str:
    """Return the fields of one user, or the reason why the import refuses the row."""
    values = {"user_id": "u", **row}
    rows = UserRows(SHOP, list(values) if table else None, layout(**options))
    try:
        return dict(rows.read(list(values.values()) if table else values).fields)
    except RowFaultError as error:
        return str(error)


VIP = ["vip=yes:true,no:false,1:true,0:false,n/a:"]


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("yes", {"a.vip": True}), ("YES", {"a.vip": True}), ("no", {"a.vip": False}), ("1", {"a.vip": True}),
        (1, {"a.vip": True}), (0, {"a.vip": False}), ("true", {"a.vip": True}), (False, {"a.vip": False}),
        ("n/a", {}), ("N/A", {}), ("maybe", 'vip: expected true or false, got "maybe"'),
    ],
)  # fmt: skip
def test_values_map_texts_to_values(raw: Any, expected: Any, *, table: bool) -> None:
    problem = read({"vip": raw}, table=table, values=VIP)
    assert problem == expected or (isinstance(expected, str) and str(problem).startswith(expected))


def test_the_empty_text_can_be_mapped_and_separators_are_escaped() -> None:
    assert read({"unsubscribed": ""}, table=True, values=["unsubscribed=:true"]) == {"unsubscribed": True}
    assert read({"vip": None}, values=["vip=:false"]) == {"a.vip": False}
    assert read({"note": "a:b,c"}, values=[r"note=a\:b\,c:colon"]) == {"a.note": "colon"}
    assert read({"tags": "x|old|y"}, table=True, values=["tags=old:new,x:"]) == {"a.tags": ["new", "y"]}
    assert read({"plan": "n/a"}, table=True, values=["plan=n/a:"], defaults=["plan=Free"]) == {
        "a.plan": "Free", "k.plan": "free",
    }  # fmt: skip


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize(
    ("date_format", "raw", "millis"),
    [
        ("%d.%m.%Y", "02.01.1970", 86_400_000),
        ("%m/%d/%Y %H:%M", "01/02/1970 00:00", 86_400_000),
        ("%d %b %Y %z", "02 Jan 1970 +0100", 82_800_000),
        ("joined=unix", "86400", 86_400_000),
        ("unix", 86_400.5, 86_400_500),
        ("unix-ms", 86_400_000, 86_400_000),
        ("unix-ms", "-1", -1),
        ("iso", "1970-01-02", 86_400_000),
        ("created_at=unix", "1970-01-02", 86_400_000),
    ],
)
def test_dates_are_read_by_their_format(date_format: str, raw: Any, millis: int, *, table: bool) -> None:
    for _ in range(2):
        assert read({"joined": raw}, table=table, date_formats=[date_format]) == {"a.joined": millis}


@pytest.mark.parametrize(
    ("date_format", "raw"),
    [("%d.%m.%Y", "31.02.2026"), ("%d.%m.%Y", 7), ("unix", "x"), ("unix", 1e18), ("unix", True), ("unix", "nan")],
)
def test_a_date_of_another_format_is_a_reject_that_names_the_format(date_format: str, raw: Any) -> None:
    problem = read({"joined": raw}, date_formats=[date_format])
    assert str(problem).startswith(f"joined: expected a time by --date-format {date_format}, got ")


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize(
    ("field", "raw", "value"),
    [
        ("spent", "12,50", 1250), ("spent", "1.234,50", 123_450), ("spent", "1.234", 123_400), ("spent", "-7", -700),
        ("spent", "1 234 567,8", 123_456_780), ("spent", "1\u202f234,5", 123_450), ("spent", "1'234,5", 123_450),
        ("score", "1,5", 1.5), ("score", "1,5e3", 1500.0), ("score", "12.345,5", 12_345.5), ("age", "1.234", 1234),
    ],
)  # fmt: skip
def test_decimal_commas_are_read_with_the_option(field: str, raw: str, value: Any, *, table: bool) -> None:
    assert read({field: raw}, table=table, decimal_comma=True) == {f"a.{field}": value}


@pytest.mark.parametrize("raw", ["12.50", "1.23,4", "1,234.5", "1.234.5", "a", ",5", "1,"])
def test_an_invalid_number_with_a_decimal_comma_is_refused(raw: str) -> None:
    assert "--decimal-comma such as 1.234,50" in str(read({"spent": raw}, decimal_comma=True))
    assert read({"spent": 12.5}, decimal_comma=True) == {"a.spent": 1250}, "numbers of JSON are numbers"


@pytest.mark.parametrize(
    ("field", "raw", "expected"),
    [
        ("spent", "12,50", 'got "12,50" (did you mean 12.50?); pass --decimal-comma'),
        ("spent", "1.234,50", "(did you mean 1234.50?); pass --decimal-comma"),
        ("spent", "1,234.50", "(did you mean 1234.50?)"),
        ("spent", "1,234", "(did you mean 1234 or 1.234?); pass --decimal-comma if the comma begins the fraction"),
        ("age", "1,234", "(did you mean 1234?)"),
        ("score", "1,5", "(did you mean 1.5?); pass --decimal-comma"),
        ("vip", "yes", "(did you mean true?); pass --values vip=yes:true,no:false"),
        ("vip", "0", "(did you mean false?); pass --values vip=1:true,0:false"),
        ("vip", 1, "pass --values vip=1:true,0:false"),
        ("vip", "wahr", "pass --values vip=TEXT:true,TEXT:false"),
        ("joined", "31.12.2026", "pass --date-format %d.%m.%Y"),
        ("joined", "12/31/2026", "pass --date-format %m/%d/%Y"),
        ("joined", "31/12/2026", "pass --date-format %d/%m/%Y"),
        ("joined", "01/02/2026", "pass --date-format %d/%m/%Y or %m/%d/%Y"),
        ("joined", "1767225600", "pass --date-format unix"),
        ("joined", 1_767_225_600_000, "pass --date-format unix-ms"),
    ],
)
def test_a_refusal_names_the_option_that_reads_the_value(field: str, raw: Any, expected: str) -> None:
    assert str(read({field: raw})).endswith(expected)


NESTED = {"profile": {"name": {"first": "Ann", "last": "A"}, "age": 7}, "mails": [{"to": "a@x.example"}, {"to": "b"}]}


def test_paths_lead_into_objects_and_arrays() -> None:
    problem = read(
        NESTED,
        maps=["profile.name.first=first_name", "mails.0.to=email", "profile.age=age"],
        ignores=["profile.name.last"],
    )
    assert problem == {"first_name": "Ann", "email": "a@x.example", "a.age": 7}
    assert read({"profile.age": 8}, maps=["profile.age=age"]) == {"a.age": 8}, "a key may be written with dots"
    assert read({"profile": None}, maps=["profile.age=age"], ignore_unknown=True) == {}


@pytest.mark.parametrize(
    ("row", "options", "expected"),
    [
        (NESTED, {"maps": ["profile.name.first=first_name"], "ignores": ["mails"]}, '"profile.name.last" (pass --map'),
        ({"email2": "x"}, {}, "did you mean email?"),
        ({"profile": {"email": "x"}}, {}, "--map profile.PART=FIELD"),
        ({"profile": {"email": "x", "a": 1}}, {"maps": ["profile.a=age"]}, '"profile.email"'),
        ({"a": 1, "age": 2}, {"maps": ["a=age"]}, "age appears twice"),
    ],
)
def test_columns_that_no_option_names_are_refused(row: Any, options: Any, expected: str) -> None:
    assert expected in str(read(row, **options))


def test_unknown_columns_and_keys_are_ignored_with_the_option_and_reported() -> None:
    rows = UserRows(SHOP, None, layout(ignore_unknown=True))
    change = rows.read(
        {"user_id": "u", "age": 1, "x": 1, "$set": 2, "a.b": 3, "attributes": {"y": 1}, "orders_count": 4}
    )
    assert change.fields == {"a.age": 1}
    assert rows.unknown.names == {"x", "$set", "a.b", "y", "orders_count"}
    rows = UserRows(SHOP, ["user_id", "x", "age", "", "orders_count"], layout(ignore_unknown=True))
    assert rows.read(["u", "?", "1", "?", "?"]).fields == {"a.age": 1}
    assert rows.unknown.names == {"x", "orders_count"}
    events = EventRows(SHOP, None, layout(ignore_unknown=True))
    event = events.read(
        {"user_id": "u", "name": "Coupon Redeemed", "time": "2026-01-01", "x": 1, "properties": {"y": 1}}
    )
    assert event.properties == {}
    assert events.unknown.names == {"x", "y"}
    lists = ListRows(SHOP, None, layout(ignore_unknown=True))
    assert lists.read({"user_id": "u", "x": 1})


@pytest.mark.parametrize("columns", [None, ["user_id", "mail", "alter"]])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"maps": ["mail=emial"]}, "did you mean email?"),
        ({"maps": ["mail=orders_count"]}, "derived from events"),
        ({"values": ["unsubscribd=yes:true"]}, "did you mean unsubscribed?"),
        ({"values": ["unsubscribed=yes:treu"]}, "expected true or false"),
        ({"values": ["user_id=a:b"]}, "there is no such field"),
        ({"values": ["vip=yes"]}, "expected TEXT:VALUE"),
        ({"values": ["vip=yes:true,yes:false"]}, "given twice"),
        ({"date_formats": ["joind=%Y"]}, "did you mean joined?"),
        ({"date_formats": ["age=%Y"]}, "it is of type integer, not a time"),
        ({"date_formats": ["%Q"]}, "bad directive"),
        ({"date_formats": ["%H:%M"]}, "no year"),
        ({"date_formats": ["dd.mm.yyyy"]}, "such as %d.%m.%Y"),
        ({"date_formats": ["%d.%m.%Y", "%Y"]}, "given twice"),
        ({"defaults": ["agee=7"]}, "did you mean age?"),
    ],
)
def test_an_option_that_names_a_missing_column_is_refused(options: Any, expected: str, columns: Any) -> None:
    with pytest.raises(WrongCall) as caught:
        UserRows(SHOP, columns, layout(**options))
    assert expected in f"{caught.value} {caught.value.remedy}"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"maps": ["total=valeu"]}, "did you mean value?"),
        ({"values": ["name=buy:Order Complete"]}, "did you mean Order Completed?"),
        ({"values": ["valu=a:1"]}, "did you mean value?"),
        ({"defaults": ["nam=x"]}, "did you mean name?"),
    ],
)
def test_an_option_that_no_event_knows_is_refused(options: Any, expected: str) -> None:
    with pytest.raises(WrongCall) as caught:
        EventRows(SHOP, None, layout(**options))
    assert expected in f"{caught.value} {caught.value.remedy}"


def test_options_apply_to_events_of_tables_and_of_json() -> None:
    options: dict[str, Any] = {
        "values": ["name=buy:Order Completed"], "date_formats": ["%d.%m.%Y"], "decimal_comma": True,
        "maps": ["wer=user_id", "was=name", "wann=time", "betrag=value"],
    }  # fmt: skip
    row = {"wer": "u", "was": "buy", "wann": "02.01.1970", "betrag": "1.234,50"}
    table = EventRows(SHOP, list(row), layout(**options)).read(list(row.values()))
    nested = EventRows(SHOP, None, layout(**options)).read({**row, "betrag": "1234,5"})
    assert table == nested
    assert (table.name, table.at, table.properties) == ("Order Completed", 86_400_000, {"value": 123_450})


def test_a_property_called_like_a_built_in_field_is_judged_as_the_event_declares_it() -> None:
    from engine.catalogue.workspace_file import workspace_of
    from engine.yamlfile.nodes import parse

    shop = workspace_of(parse("workspace: shop\nevents: {Moved: {timezone: string, email: string}}", "shop.yaml"))
    row = {"user_id": "u", "name": "Moved", "time": "2026-01-01", "properties": {"timezone": "none", "email": "none"}}
    assert EventRows(shop, None, layout()).read(row).properties == {"timezone": "none", "email": "none"}
