"""Damaged and foreign files: the reader returns every row before the damage, then an error names the place."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import WrongCall
from engine.pipeline.importing.line_reader import DamagedFile, RawRow
from engine.pipeline.importing.readers import open_reader
from engine.pipeline.importing.unpack_bytes import Chunks, encoding_named, unpacked

CSV = b"user_id,age\n" + b"".join(b"user-%d,%d\n" % (n, n * 7919) for n in range(20_000))


def read(path: Path, size: int = 5_000, **more: str) -> tuple[list[RawRow], str]:
    """Return all rows that the reader yields, and the text of its error about the damage."""
    rows: list[RawRow] = []
    reader = open_reader(path, **more)
    try:
        for batch in reader.batches(size, None):
            rows += batch.rows
    except DamagedFile as error:
        return rows, str(error)
    finally:
        reader.close()
    return rows, ""


@pytest.mark.parametrize("kept", [0.001, 0.3, 0.5, 0.77, 0.999])
@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_all_rows_before_the_cut_of_a_truncated_gzip_file_are_read(tmp_path: Path, kept: float, form: str) -> None:
    content = CSV if form == "csv" else CSV.replace(b"\n", b'"}\n').replace(b"user", b'{"user_id": "user')
    packed = gzip.compress(content)
    path = tmp_path / f"a.{form}.gz"
    path.write_bytes(packed[: int(len(packed) * kept)])
    left = b""
    try:
        for chunk in unpacked(iter([path.read_bytes()])):
            left += chunk
    except EOFError:
        pass
    whole_lines = left.count(b"\n")
    rows, problem = read(path)
    assert len(rows) == whole_lines - (form == "csv")
    assert problem.startswith(f"line {whole_lines + 1}: the file is damaged: it ends in the middle")


def test_a_flipped_byte_of_a_gzip_file_loses_no_row_before_it(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(CSV, 1))
    at = len(packed) * 2 // 3
    before = gzip.compress(CSV, 1)[:at]
    sound = 0
    try:
        for chunk in unpacked(iter([before])):
            sound += chunk.count(b"\n")
    except EOFError:
        pass
    for place in range(at, at + 40):
        packed[place] ^= 0xFF
    path = tmp_path / "a.csv.gz"
    path.write_bytes(bytes(packed))
    rows, problem = read(path)
    assert len([row for row in rows if not row.fault]) >= sound - 1
    assert [row.values for row in rows[: sound - 1]] == [[f"user-{n}", str(n * 7919)] for n in range(sound - 1)]
    assert "cannot be unpacked" in problem
    assert "may be wrong too" in problem


def test_a_wrong_checksum_is_reported_after_the_last_row(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(CSV))
    packed[-6] ^= 1
    (tmp_path / "a.csv.gz").write_bytes(bytes(packed))
    rows, problem = read(tmp_path / "a.csv.gz")
    assert len(rows) == 20_000
    assert "incorrect data check" in problem


def test_concatenated_gzip_members_and_padding_are_one_file(tmp_path: Path) -> None:
    packed = gzip.compress(CSV[:999]) + gzip.compress(b"") + gzip.compress(CSV[999:]) + b"\0" * 600
    for size in (1, 7, 1 << 17):
        pieces = (packed[at : at + size] for at in range(0, len(packed), size))
        assert io.BufferedReader(Chunks(unpacked(pieces))).read() == CSV
    (tmp_path / "a.csv.gz").write_bytes(packed + b"more")
    rows, problem = read(tmp_path / "a.csv.gz")
    assert len(rows) == 20_000
    assert "incorrect header check" in problem


def test_an_open_quote_before_the_damage_loses_only_its_own_row(tmp_path: Path) -> None:
    packed = gzip.compress(b'user_id,age\na,1\nb,"2\nc,3\nd,4\n')
    (tmp_path / "a.csv.gz").write_bytes(packed[:-9])
    rows, problem = read(tmp_path / "a.csv.gz")
    assert [(row.line, bool(row.fault)) for row in rows] == [(2, False), (3, True), (4, False), (5, False)]
    assert problem.startswith("line 6:")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"PK\x03\x04....", "zip file or a spreadsheet"),
        (b"\x28\xb5\x2f\xfd....", "packed with zstd"),
        (b"BZh9....", "packed with bzip2"),
        (b"\xfd7zXZ\x00", "packed with xz"),
        (b"PAR1....", "--format parquet"),
        pytest.param(gzip.compress(CSV, mtime=0)[:6], "line 1: the file is damaged", id="gzip"),
    ],
)
def test_a_file_of_another_format_is_refused_with_that_format(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(WrongCall) as caught:
        open_reader(path)
    assert expected in f"{caught.value} {caught.value.remedy}"


def parquet(path: Path, *, checked: bool = False) -> int:
    """Write 5 groups of 4,000 rows, the fourth damaged in its middle; return the number of rows before the damage."""
    table = pa.table({"user_id": [f"u{n}" for n in range(20_000)], "age": list(range(20_000))})
    pq.write_table(
        table, path, row_group_size=4_000, use_dictionary=False, data_page_size=2_000,
        compression="none" if checked else "snappy", write_page_checksum=checked,
    )  # fmt: skip
    column = pq.ParquetFile(path).metadata.row_group(3).column(0)
    content = bytearray(path.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    for place in range(middle, middle + (1 if checked else 60)):
        content[place] ^= 0xFF
    path.write_bytes(bytes(content))
    return 12_000


@pytest.mark.parametrize("checked", [False, True])
def test_all_rows_before_a_damaged_page_of_parquet_are_read(tmp_path: Path, *, checked: bool) -> None:
    before = parquet(tmp_path / "a.parquet", checked=checked)
    results = [read(tmp_path / "a.parquet", size) for size in (5_000, 300)]
    assert results[0] == results[1]
    rows, problem = results[0]
    assert len(rows) > before, "pages before the damaged one count"
    assert [row.values for row in rows] == [(f"u{n}", n) for n in range(len(rows))]
    assert problem.startswith(f"row {len(rows) + 1}: the file is damaged")


def test_parquet_without_its_end_is_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    for kept in (content[:-100], content[:-70] + b"\xff" * 62 + content[-8:], b"", b"PAR1PAR1"):
        (tmp_path / "b.parquet").write_bytes(kept)
        with pytest.raises(WrongCall, match="is damaged"):
            open_reader(tmp_path / "b.parquet")


DOCUMENTS = [{"user_id": f"u{n}", "deep": {"x": [1, {"y": "]"}]}, "note": 'a\\"ü'} for n in range(2_000)]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(DOCUMENTS),
        json.dumps(DOCUMENTS, indent=2, ensure_ascii=False),
        "\ufeff [\n" + ",\n".join(map(json.dumps, DOCUMENTS)) + "\n]\n",
        "\n".join(json.dumps(document, indent=1) for document in DOCUMENTS),
        "\n".join(map(json.dumps, DOCUMENTS)),
    ],
    ids=["one line", "indented array", "element a line", "indented objects", "ndjson"],
)
def test_json_of_any_layout_is_read_and_resumes_after_any_batch(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    reader = open_reader(path)
    batches = list(reader.batches(700, None))
    reader.close()
    assert [row.values for batch in batches for row in batch.rows] == DOCUMENTS
    again = open_reader(path)
    assert [row.values for batch in again.batches(300, batches[0].after) for row in batch.rows] == DOCUMENTS[700:]
    again.close()


@pytest.mark.parametrize(
    ("text", "good", "expected"),
    [
        (json.dumps(DOCUMENTS)[:-30], 1_999, "value 2000: the file is damaged"),
        (json.dumps(DOCUMENTS)[:-1], 2_000, "no closing bracket"),
        ('[{"user_id": "a"}, {bad}, {"user_id": "b"}]', 1, "value 2:"),
        ('[{"user_id": "a"}] x', 1, "something follows"),
        ('[{"user_id": "a"}, ' + "[" * 100_000, 1, "nested too deeply"),
        ("[]", 0, ""),
    ],
)
def test_a_broken_array_yields_the_values_before_the_break(tmp_path: Path, text: str, good: int, expected: str) -> None:
    (tmp_path / "a.json").write_text(text)
    rows, damage = read(tmp_path / "a.json")
    assert len(rows) == good
    assert expected in damage
    assert bool(expected) == bool(damage)


def test_an_invalid_element_of_an_array_loses_only_itself(tmp_path: Path) -> None:
    content = b'[{"user_id": "a"}, {"user_id": "\xff"}, {"user_id": "\\ud800"}, {"x": NaN}, 7, "b", {"user_id": "c"}]'
    (tmp_path / "a.json").write_bytes(content)
    rows, problem = read(tmp_path / "a.json")
    assert not problem
    assert [bool(row.fault) for row in rows] == [False, True, True, True, True, False, False]
    assert "not UTF-8" in rows[1].fault


@pytest.mark.parametrize(("name", "form"), [("a.csv", "csv"), ("a.ndjson", "ndjson")])
def test_named_encodings_are_read(tmp_path: Path, name: str, form: str) -> None:
    texts = ["Jürgen", "José", "Łukasz"]
    lines = {
        "csv": "user_id,note\n" + "".join(f"{n},{text}\n" for n, text in enumerate(texts)),
        "ndjson": "".join(f'{{"user_id": "{n}", "note": "{text}"}}\n' for n, text in enumerate(texts)),
    }[form]
    path = tmp_path / name
    for encoding in ("utf-16", "utf-16-le", "cp1250", "utf-8-sig", "gb18030"):
        path.write_bytes(lines.encode(encoding, errors="replace"))
        rows, _ = read(path, encoding=encoding)
        values = [row.values["note"] if isinstance(row.values, dict) else row.values[1] for row in rows if row.values]
        assert values[0] == "Jürgen".encode(encoding, errors="replace").decode(encoding)
        assert len(values) == 3
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        assert read(tmp_path / f"{name}.gz", encoding=encoding)[0] == rows


def test_bytes_invalid_in_the_encoding_lose_only_their_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"user_id,note\n1,J\xfcrgen\n2,a\x81b\n3,x\n")
    rows, _ = read(tmp_path / "a.csv", encoding="cp1252")
    assert [row.fault for row in rows] == ["", "has bytes that are not text in cp1252 (pass another --encoding)", ""]
    rows, _ = read(tmp_path / "a.csv")
    assert [bool(row.fault) for row in rows] == [True, True, False]
    assert "--encoding" in rows[0].fault


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"encoding": "latin-11"}, "did you mean latin-1?"),
        ({"encoding": "base64"}, "no such encoding"),
        ({"delimiter": ""}, "expected one character"),
        ({"delimiter": ";;"}, "expected one character"),
    ],
)
def test_options_without_effect_are_refused(tmp_path: Path, more: dict[str, str], expected: str) -> None:
    (tmp_path / "a.csv").write_text("user_id\n1\n")
    with pytest.raises(WrongCall) as caught:
        open_reader(tmp_path / "a.csv", **more)
    assert expected in f"{caught.value} {caught.value.remedy}"


@pytest.mark.parametrize("name", ["klingon", "base64", "rot13", "idna", "punycode", "undefined", "unicode_escape"])
def test_codecs_that_are_no_text_encodings_are_refused(name: str) -> None:
    with pytest.raises(WrongCall, match=f"--encoding {name}: there is no such encoding"):
        encoding_named(name)
