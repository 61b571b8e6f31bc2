"""Values without a counterpart in the catalogue: from Parquet and from MongoDB's Extended JSON."""

from __future__ import annotations

from datetime import time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.catalogue.workspace_file import read_workspace
from engine.pipeline.importing.columns import Layout, RowFaultError
from engine.pipeline.importing.extended_json import plain
from engine.pipeline.importing.readers import open_reader
from engine.pipeline.importing.rows import EventRows, UserRows

SHOP = read_workspace(Path(__file__).parents[3] / "integration" / "pipeline" / "importing" / "shop.yaml")
YEAR_10000 = 253_402_300_800


def outcome(rows: UserRows, values: Any) -> dict[str, Any] | str:
    try:
        return dict(rows.read(values).fields)
    except RowFaultError as error:
        return str(error)


def imported(path: Path, table: pa.Table, layout: Layout | None = None, **more: Any) -> list[dict[str, Any] | str]:
    """Return the result of each row of a table."""
    pq.write_table(table, path, **more)
    reader = open_reader(path)
    try:
        rows = UserRows(SHOP, reader.columns, layout or Layout())
        return [outcome(rows, row.values) for batch in reader.batches(3, None) for row in batch.rows]
    finally:
        reader.close()


def times(seconds: list[int | None], unit: str, zone: str | None = None) -> pa.Array:
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    return pa.array([second if second is None else second * factor for second in seconds], pa.int64()).cast(
        pa.timestamp(unit, zone)
    )


@pytest.mark.parametrize(
    ("column", "kinds"),
    [
        ("joined", times([0, YEAR_10000, None, -62_135_596_801, 2**50], "s")),
        ("joined", times([0, YEAR_10000, None, -62_135_596_801, 2**43], "us", "Europe/Berlin")),
        ("joined", pa.array([0, 2_932_897, None, -719_163, 10**6 * 5], pa.int32()).cast(pa.date32())),
        ("joined", pa.array([timedelta(1), time(1), None, b"x", "2026"][:1] * 5)),
        ("age", pa.array([1, 2**64 - 1, None, 2**63, 3], pa.uint64())),
        ("age", pa.array([1.0, float("nan"), None, float("inf"), 3.5])),
        ("score", pa.array([1.5, float("nan"), None, float("-inf"), 3.5])),
        (
            "spent",
            pa.array([Decimal("1.50"), Decimal("1.555"), None, Decimal(10) ** 30, Decimal(0)], pa.decimal128(38, 3)),
        ),
        ("note", pa.array([b"a", b"\xff", None, b"", b"x"])),
        ("note", pa.array([["a"], [], None, ["b"], ["c"]])),
        ("note", pa.array([[("k", 1)]] * 5, pa.map_(pa.string(), pa.int32()))),
        ("vip", pa.array([True, False, None, True, False]).cast(pa.int8())),
        ("tags", pa.array([["a", None], ["b"], None, [], ["c"]])),
    ],
)
def test_each_odd_value_loses_only_its_own_row(tmp_path: Path, column: str, kinds: pa.Array) -> None:
    count = len(kinds)
    table = pa.table({"user_id": [f"u{n}" for n in range(count)], column: kinds})
    single = []
    for place in range(count):
        try:
            single += imported(tmp_path / "one.parquet", table.slice(place, 1))
        except pa.ArrowInvalid:
            single.append("cannot be written")
    assert imported(tmp_path / "all.parquet", table) == single
    assert single[2] == {} or column == "note" or isinstance(single[2], str), "null says nothing"


def test_a_time_in_the_year_10000_is_rejected_with_the_reason(tmp_path: Path) -> None:
    table = pa.table({"user_id": ["a", "b", "c"], "joined": times([0, YEAR_10000, 86_400], "us")})
    counts = imported(tmp_path / "a.parquet", table)
    assert counts == [
        {"a.joined": 0},
        "joined: expected a time such as 2026-12-01T08:00:00Z, got a time outside the years 1 to 9999",
        {"a.joined": 86_400_000},
    ]


def test_a_time_is_an_instant_in_any_zone_notation(tmp_path: Path) -> None:
    for zone in ("UTC", "Mars/Phobos", "W. Europe Standard Time", "+05:30"):
        table = pa.table({"user_id": ["a", "b"], "joined": times([86_400, YEAR_10000], "us", zone)})
        counts = imported(tmp_path / "a.parquet", table)
        assert counts[0] == {"a.joined": 86_400_000}
        assert "outside the years 1 to 9999" in str(counts[1])
    table = pa.table({"user_id": ["a", "b"], "note": [None, [0]]}).cast(
        pa.schema([("user_id", pa.string()), ("note", pa.list_(pa.timestamp("us", "Mars/Phobos")))])
    )
    counts = imported(tmp_path / "a.parquet", table)
    assert counts[0] == {}
    assert isinstance(counts[1], str), "a row's fault"


def test_an_odd_value_in_an_ignored_column_loses_no_row(tmp_path: Path) -> None:
    table = pa.table({"user_id": ["a", "b"], "x": times([0, YEAR_10000], "us"), "y": [b"\xff", b"\0"]})
    counts = imported(tmp_path / "a.parquet", table, Layout(ignored=frozenset({"x"}), ignore_unknown=True))
    assert counts == [{}, {}]


def test_bytes_that_are_no_text_in_a_text_column_are_a_reject(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff\xfe"]).buffers())
    counts = imported(tmp_path / "a.parquet", pa.table({"user_id": ["a", "b"], "note": broken}))
    assert counts == [{"a.note": "ok"}, "note: expected text, got bytes that are not UTF-8"]


def test_structs_of_parquet_are_columns_by_their_path(tmp_path: Path) -> None:
    people = [{"name": {"first": "Ann", "last": "A"}, "age": 7}, None, {"name": None, "age": None}]
    table = pa.table({"user_id": ["a", "b", "c"], "profile": people, "attributes": [{"plan": "x"}, None, None]})
    layout = Layout(
        {"profile.name.first": "first_name", "profile.age": "age"}, ignored=frozenset({"profile.name.last"})
    )
    assert imported(tmp_path / "a.parquet", table, layout) == [
        {"first_name": "Ann", "a.age": 7, "a.plan": "x", "k.plan": "x"}, {}, {},
    ]  # fmt: skip


def test_whole_decimals_of_parquet_are_whole_numbers(tmp_path: Path) -> None:
    table = pa.table({"user_id": ["a"], "age": pa.array([Decimal(7)], pa.decimal128(38, 0)), "score": [Decimal("1.5")]})
    assert imported(tmp_path / "a.parquet", table) == [{"a.age": 7, "a.score": 1.5}]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('{"$oid": "65a1b2c3d4e5f60718293a4b"}', "65a1b2c3d4e5f60718293a4b"),
        ('{"$date": "2026-01-01T00:00:00.5Z"}', "2026-01-01T00:00:00.5Z"),
        ('{"$date": {"$numberLong": "1767225600000"}}', "2026-01-01T00:00:00.000Z"),
        ('{"$date": {"$numberLong": "-1"}}', "1969-12-31T23:59:59.999Z"),
        ('{"$date": 1767225600000}', "2026-01-01T00:00:00.000Z"),
        ('{"$numberLong": "9007199254740993"}', 9_007_199_254_740_993),
        ('{"$numberInt": "-7"}', -7),
        ('{"$numberDouble": "1.5"}', 1.5),
        ('{"$numberDecimal": "12.50"}', Decimal("12.50")),
        ('{"$symbol": "x"}', "x"),
        ('{"$undefined": true}', None),
        ('{"$uuid": "c8edabc3-f738-4ca3-b68d-ab92a91478a3"}', "c8edabc3-f738-4ca3-b68d-ab92a91478a3"),
        (
            '{"$binary": {"base64": "yO2rw/c4TKO2jauSqRR4ow==", "subType": "04"}}',
            "c8edabc3-f738-4ca3-b68d-ab92a91478a3",
        ),
        ('{"$binary": "yO2rw/c4TKO2jauSqRR4ow==", "$type": "04"}', "c8edabc3-f738-4ca3-b68d-ab92a91478a3"),
        ('{"$timestamp": {"t": 1767225600, "i": 1}}', "2026-01-01T00:00:00.000Z"),
        ('[{"x": {"$numberInt": "1"}}, {"$oid": "65a1b2c3d4e5f60718293a4b"}]', [{"x": 1}, "65a1b2c3d4e5f60718293a4b"]),
        ('{"$gt": ""}', {"$gt": ""}),
    ],
)
def test_extended_json_becomes_the_wrapped_value(written: str, value: object) -> None:
    assert plain(msgspec.json.decode(written)) == value


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('{"$date": {"$numberLong": "253402300800000"}}', "a time outside the years 1 to 9999"),
        ('{"$date": {"$numberLong": "99999999999999999999"}}', "a time outside"),
        ('{"$date": null}', "an invalid date"),
        ('{"$numberLong": "x"}', "an invalid whole number"),
        ('{"$numberDouble": "NaN"}', "nan"),
        ('{"$numberDouble": "Infinity"}', "inf"),
        ('{"$numberDecimal": "NaN"}', "a decimal that is NaN"),
        ('{"$numberDecimal": "1E+6144"}', "1E+6144"),
        ('{"$oid": "x"}', "an invalid ObjectId"),
        ('{"$binary": {"base64": "AAAA", "subType": "00"}}', "binary data"),
        ('{"$binary": {"base64": "!", "subType": "04"}}', "binary data"),
        ('{"$regularExpression": {"pattern": "a", "options": ""}}', "a regular expression"),
        ('{"$code": "x"}', "JavaScript code"),
        ('{"$minKey": 1}', "MinKey"),
        ('{"$ref": "c", "$id": 1}', "a reference"),
        ('{"$uuid": 7}', "an invalid UUID"),
        ('{"$timestamp": 7}', "an invalid timestamp"),
    ],
)
@pytest.mark.parametrize("field", ["joined", "age", "score", "spent", "note", "vip"])
def test_unsupported_extended_json_is_refused_by_its_type(written: str, expected: str, field: str) -> None:
    result = outcome(UserRows(SHOP, None, Layout()), {"user_id": "u", field: plain(msgspec.json.decode(written))})
    assert isinstance(result, str)
    assert result.startswith(f"{field}: ")
    assert expected in result


MONGOEXPORT = """\
{"_id":{"$oid":"65a1b2c3d4e5f60718293a4b"},"email":"a@x.example","joined":{"$date":"2026-01-01T00:00:00Z"},"age":7,"spent":{"$numberDecimal":"12.50"},"profile":{"name":{"first":"Ann"}},"emails":[{"a":1},{"a":2}],"__v":0}
{"_id":{"$oid":"65a1b2c3d4e5f60718293a4c"},"email":"b@x.example","joined":{"$date":{"$numberLong":"1767225600000"}},"age":{"$numberLong":"7"},"spent":{"$numberDouble":"12.5"},"profile":{"name":{"first":"Ann"}},"emails":[{"a":1}],"__v":{"$numberInt":"0"}}
"""


def test_relaxed_and_canonical_mongoexport_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "users.json").write_text(MONGOEXPORT)
    layout = Layout({"_id": "user_id", "profile.name.first": "first_name"}, ignore_unknown=True)
    reader = open_reader(tmp_path / "users.json")
    rows = UserRows(SHOP, None, layout)
    values = [rows.read(row.values) for batch in reader.batches(10, None) for row in batch.rows if row.values]
    reader.close()
    same = {"a.joined": 1_767_225_600_000, "a.age": 7, "a.spent": 1250, "first_name": "Ann"}
    assert [dict(row.fields) for row in values] == [{**same, "email": "a@x.example"}, {**same, "email": "b@x.example"}]
    assert values[0].key.endswith("/65a1b2c3d4e5f60718293a4b")
    assert rows.unknown.names == {"emails", "__v"}


def test_events_of_mongoexport_are_read() -> None:
    layout = Layout(
        {"_id": "id", "customer.id": "user_id", "at": "time", "total": "value"}, {"name": "Order Completed"}
    )
    row = {
        "_id": {"$oid": "65a1b2c3d4e5f60718293a4b"}, "customer": {"id": {"$numberLong": "17"}},
        "at": {"$date": {"$numberLong": "1767225600000"}}, "total": {"$numberDecimal": "2.50"},
    }  # fmt: skip
    event = EventRows(SHOP, None, layout).read(plain(row))
    assert (event.id, event.at, event.properties) == ("65a1b2c3d4e5f60718293a4b", 1_767_225_600_000, {"value": 250})
