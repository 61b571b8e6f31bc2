"""Read files as batches: every format, from every position."""

from __future__ import annotations

import gzip
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import WrongCall
from engine.pipeline.importing.line_reader import Position
from engine.pipeline.importing.readers import open_reader


def rows(path: Path, size: int = 2, start: Position | None = None, **more: Any) -> list[Any]:
    reader = open_reader(path, **more)
    try:
        return [row for batch in reader.batches(size, start) for row in batch.rows]
    finally:
        reader.close()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The same five rows in every format."""
    ids = [f"u{number}" for number in range(5)]
    (tmp_path / "a.csv").write_text("user_id,age\r\n" + "".join(f'{name},"{7}"\n' for name in ids))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    (tmp_path / "a.ndjson").write_text("\n".join(f'{{"user_id": "{name}", "age": "7"}}' for name in ids))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.ndjson").read_bytes()))
    table = pa.table({"user_id": ids, "age": ["7"] * 5})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    return {path.name: path for path in tmp_path.iterdir()}


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.ndjson", "a.jsonl.gz", "a.parquet"])
def test_every_format_yields_the_same_rows_and_resumes_after_any_batch(files: dict[str, Path], name: str) -> None:
    whole = rows(files[name])
    read_rows = [
        row.values if isinstance(row.values, dict) else dict(zip(["user_id", "age"], row.values, strict=True))
        for row in whole
    ]
    assert read_rows == [{"user_id": f"u{number}", "age": "7"} for number in range(5)]
    for size in (1, 2, 3, 5):
        reader = open_reader(files[name])
        batches = list(reader.batches(size, None))
        reader.close()
        assert 0.99 <= batches[-1].share <= 1.0
        read = 0
        for batch in batches:
            read += len(batch.rows)
            assert rows(files[name], 2, batch.after) == whole[read:]


def test_parquet_values_keep_their_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "user_id": pa.array(["u"]).dictionary_encode(),
            "at": pa.array([datetime(2026, 1, 1, 12, 0, 0, 123456, UTC)], pa.timestamp("ns", "Europe/Berlin")),
            "day": pa.array([date(2026, 1, 2)]),
            "spent": pa.array([Decimal("1.50")], pa.decimal128(10, 2)),
            "tags": pa.array([["a", "b"]]),
            "none": pa.array([None], pa.int64()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    user, at, day, spent, tags, none = rows(tmp_path / "a.parquet")[0].values
    assert (user, day, spent, tags, none) == ("u", "2026-01-02", Decimal("1.50"), ["a", "b"], None)
    assert at == datetime(2026, 1, 1, 12, 0, 0, 123000, UTC)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"\xff\xfeu\0", "UTF-16"),
        (b"user_id,\xff\n", "not UTF-8"),
        (b"user_id;age\n", "--delimiter ';'"),
        (b'user_id,"age\n', "not closed"),
        (b"user_id,age\ru1,7\r", "CR alone"),
    ],
)
def test_an_unusable_file_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(WrongCall) as caught:
        open_reader(path)
    assert expected in f"{caught.value} {caught.value.remedy}"


def test_an_unknown_format_and_a_false_parquet_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")
    with pytest.raises(WrongCall, match="does not show the format"):
        open_reader(path)
    with pytest.raises(WrongCall, match="not a Parquet file"):
        open_reader(path, form="parquet")
    with pytest.raises(WrongCall, match="cannot be read"):
        open_reader(tmp_path / "none.csv")


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfuser_id,age\nu,7\n")
    reader = open_reader(path)
    assert reader.columns == ("user_id", "age")
    reader.close()
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'\xef\xbb\xbf{"user_id": "u"}\n')
    assert rows(path)[0].values == {"user_id": "u"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"user_id": "u"', "not valid JSON"),
        (b'{"user_id": "u}', "not valid JSON"),
        (b'{"user_id": "\xff"}', "not UTF-8"),
        (b'{"user_id": "u", "score": NaN}', "not valid JSON"),
        (b'{"user_id": "\\ud800"}', "not valid JSON"),
        (b"[1]", "not a JSON object"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_bad_line_of_ndjson_loses_only_itself(tmp_path: Path, line: bytes, expected: str) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"user_id": "a"}\n' + line + b'\n\n{"user_id": "b"}\n')
    read = rows(path)
    assert [row.line for row in read] == [1, 2, 4]
    assert expected in read[1].fault
    assert not read[0].fault
    assert not read[2].fault


def test_a_truncated_gzip_or_parquet_file_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(b"user_id,age\n" + b"".join(b"user-%d,%d\n" % (n, n * 7919) for n in range(20_000)))
    path = tmp_path / "a.csv.gz"
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(WrongCall, match="damaged"):
        rows(path, 1000)
    whole = tmp_path / "a.parquet"
    pq.write_table(pa.table({"user_id": [f"u{n}" for n in range(5_000)]}), whole, row_group_size=1000)
    content = bytearray(whole.read_bytes())
    content[4:4000] = b"\xff" * 3996
    whole.write_bytes(bytes(content))
    with pytest.raises(WrongCall, match="damaged"):
        rows(whole, 1000)


def test_parquet_without_pyarrow_is_refused_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "engine.pipeline.importing.parquet", raising=False)
    with pytest.raises(WrongCall, match="Parquet is read by pyarrow, which is not installed") as refused:
        open_reader(tmp_path / "a.parquet")
    assert "tidegate[parquet]" in refused.value.remedy
