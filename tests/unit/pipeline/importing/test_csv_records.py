"""Split CSV into records: one bad row affects only itself."""

from __future__ import annotations

import io

import pytest

from engine.pipeline.importing import csv_records, line_reader
from engine.pipeline.importing.csv_records import CsvRecords, Record
from engine.pipeline.importing.line_reader import Lines


def read(content: bytes, columns: int = 3, delimiter: str = ",", offset: int = 0, line: int = 2) -> list[Record]:
    file = io.BytesIO(content)
    file.seek(offset)
    return list(CsvRecords(Lines(file, offset, line), columns, delimiter))


def cells(content: bytes, columns: int = 3, delimiter: str = ",") -> list[list[str] | None]:
    return [record.cells for record in read(content, columns, delimiter)]


def faulty(content: bytes, columns: int = 3) -> list[int]:
    return [record.line for record in read(content, columns) if record.fault]


def test_quoted_commas_newlines_and_quotes_are_part_of_the_field() -> None:
    assert cells(b'a,"x, y",c\r\nb,"one\r\ntwo\n\nthree",d\n"e","say ""hi""",""\n') == [
        ["a", "x, y", "c"],
        ["b", "one\r\ntwo\n\nthree", "d"],
        ["e", 'say "hi"', ""],
    ]


def test_the_last_line_needs_no_newline_and_blank_lines_are_skipped() -> None:
    assert cells(b"a,b,c\n\n\r\nd,e,f") == [["a", "b", "c"], ["d", "e", "f"]]


def test_lines_are_counted_through_fields_that_span_several() -> None:
    assert [(record.line, record.next_line) for record in read(b'a,"1\n2\n3",c\nd,e,f\n')] == [(2, 5), (5, 6)]


@pytest.mark.parametrize(
    "bad",
    [
        b'u,"open,x',
        b'u,x,"open',
        b'"u,x,y',
        b'u,x,"',
        b'u,x"y,z',
        b'u,"x"y,z',
        b"u,x",
        b"u,x,y,z",
        b"u,\xff,z",
        b"u,x\0,z",
        b'u,"\xc3",z',
    ],
)
@pytest.mark.parametrize("behind", [b"v,w,x", b'v,"w, w",x', b'v,"w\nw",x', b'v,"",x', b'"v",w,x', b'v,w,"x ""x"""'])
def test_a_bad_row_loses_only_itself(bad: bytes, behind: bytes) -> None:
    content = bad + b"\n" + b"\n".join([behind] * 5) + b"\n" + b"y,z,z\n"
    records = read(content)
    assert [record.line for record in records if record.fault] == [2]
    assert len(records) == 7


def test_an_unclosed_quote_in_the_last_row_is_rejected_alone() -> None:
    assert faulty(b'a,b,c\nd,"e,f\n') == [3]
    assert faulty(b'a,b,c\nd,"e,f') == [3]


def test_an_unclosed_quote_before_many_plain_rows_ends_at_a_bound() -> None:
    content = b'u,"open,x\n' + b"a,b,c\n" * (2 * csv_records.MOST_LINES)
    assert faulty(content) == [2]
    assert len(read(content)) == 1 + 2 * csv_records.MOST_LINES


def test_a_quote_closed_by_accident_in_a_later_row_is_detected_by_its_columns() -> None:
    assert faulty(b'u,"open,x\nb,c,d\ne,f"\ng,h,i\n') == [2, 4]


def test_two_open_quotes_do_not_swallow_the_rows_between_them() -> None:
    between = b"aaaaaaaaaa,bbbbbbbbbb,cccccccccc\n" * 300
    assert faulty(b'u,x,"\n' + between + b'v,y,"\n') == [2, 303]


def test_a_quoted_text_too_long_to_keep_is_one_row() -> None:
    text = b"some prose, with commas, as prose has\nand a line without\n" * 200
    records = read(b'u,"' + text + b'",z\na,b,c\n')
    assert [len(record.cells or []) for record in records] == [3, 3]


def test_reading_resumes_at_the_offset_after_any_record() -> None:
    content = b'a,"1\n2",c\nbad\nd,"open,f\ng,h,i\n"j",k,l\n'
    whole = read(content)
    for number, batch in enumerate(whole[:-1]):
        assert read(content, offset=batch.end, line=batch.next_line) == whole[number + 1 :]


def test_an_endless_line_is_one_fault_and_is_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (line_reader, csv_records):
        monkeypatch.setattr(module, "LONGEST_LINE", 100)
    monkeypatch.setattr(line_reader, "BLOCK", 30)
    records = read(b"a,b," + b"x" * 1000 + b'"\nd,e,f\n')
    assert [record.line for record in records if record.fault] == [2]
    assert len(records[0].raw) <= 200
    assert records[1].cells == ["d", "e", "f"]


def test_other_delimiters_are_read() -> None:
    assert cells(b'a;"b;c";d\n', delimiter=";") == [["a", "b;c", "d"]]
    assert cells(b"a\tb\tc\n", delimiter="\t") == [["a", "b", "c"]]


@pytest.mark.parametrize("columns", [1, 2])
def test_files_of_few_columns_keep_multi_line_texts(columns: int) -> None:
    row = b'"one\ntwo\nthree"' + b",x" * (columns - 1)
    assert cells(row + b"\n" + b"y" + b",z" * (columns - 1), columns)[0] == ["one\ntwo\nthree", "x"][:columns]
