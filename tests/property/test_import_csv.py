"""The reader returns everything that a CSV writer wrote, and can stop and continue anywhere."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.pipeline.importing.csv_records import CsvRecords
from engine.pipeline.importing.line_reader import Lines, RawRow
from engine.pipeline.importing.readers import open_reader

CELL = st.text(st.sampled_from('ab,";\n\r\tü 1'), max_size=8)


@st.composite
def tables(draw: st.DrawFn) -> list[list[str]]:
    columns = draw(st.integers(1, 4))
    return draw(st.lists(st.lists(CELL, min_size=columns, max_size=columns), min_size=1, max_size=12))


def written(table: list[list[str]], *, quoting: int, end: str) -> bytes:
    file = io.StringIO()
    csv.writer(file, quoting=quoting, lineterminator=end).writerows(table)  # type: ignore[arg-type] # a constant
    return file.getvalue().encode()


@given(tables(), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_csv_round_trips(table: list[list[str]], quoting: int, end: str, ended: bool) -> None:
    if quoting == csv.QUOTE_MINIMAL:
        # Python's writer leaves a CR alone unquoted, which RFC 4180 does not allow.
        table = [[cell.replace("\r", "") for cell in row] for row in table]
    content = written(table, quoting=quoting, end=end)
    content = content if ended else content.removesuffix(end.encode())
    records = list(CsvRecords(Lines(io.BytesIO(content), 0, 1), len(table[0]), ","))
    assert [record.fault for record in records] == [""] * len(records)
    assert [record.cells for record in records] == table


@given(st.binary(max_size=200), st.integers(1, 4))
def test_any_bytes_are_read_to_the_end_and_every_line_belongs_to_one_record(content: bytes, columns: int) -> None:
    records = list(CsvRecords(Lines(io.BytesIO(content), 0, 1), columns, ","))
    ends = [0, *(record.end for record in records)]
    assert ends == sorted(set(ends))
    assert all((record.cells is None) == bool(record.fault) for record in records)
    assert content[ends[-1] :].strip(b"\r\n") == b""


LINES = st.lists(
    st.sampled_from([b"a,b", b'"a",b', b'a,"b', b'b"', b"", b"\xff,b", b"\0,", b"a", b'"x\ny",b', b"\r"]), max_size=15
)


@given(st.binary(max_size=200) | LINES.map(b"\n".join), st.integers(1, 3), st.integers(1, 5))
def test_records_read_in_blocks_equal_records_read_one_by_one(content: bytes, columns: int, size: int) -> None:
    records = CsvRecords(Lines(io.BytesIO(content), 0, 1), columns, ",")
    expected = [
        (record.line, record.cells, record.fault, record.raw)
        for record in CsvRecords(Lines(io.BytesIO(content), 0, 1), columns, ",")
    ]
    raw_rows: list[RawRow] = []
    while True:
        rows, after = records.some(size)
        if not rows:
            break
        raw_rows += rows
        there = io.BytesIO(content)
        there.seek(after.offset)
        rest = [(record.line, record.cells) for record in CsvRecords(Lines(there, *after), columns, ",")]
        assert rest == [row[:2] for row in expected[len(raw_rows) :]], "reading goes on behind them"
    assert [tuple(row) for row in raw_rows] == expected


@settings(deadline=None)
@given(tables(), st.integers(1, 5))
def test_reading_resumes_after_every_batch(table: list[list[str]], size: int) -> None:
    header = [f"c{number}" for number in range(len(table[0]))]
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        file.write(written([header, *table], quoting=csv.QUOTE_ALL, end="\n"))
        file.flush()
        whole = open_reader(Path(file.name))
        batches = list(whole.batches(size, None))
        whole.close()
        rows = [row for batch in batches for row in batch.rows]
        assert [row.values for row in rows] == table
        for number, batch in enumerate(batches, 1):
            again = open_reader(Path(file.name))
            assert [row for rows_ in again.batches(3, batch.after) for row in rows_.rows] == rows[number * size :]
            again.close()
