"""Read files as batches of raw rows, in constant memory, from any position that an earlier run has reached.

CSV and JSON may be gzipped, and in another encoding than UTF-8. A position is an offset into the bytes (unpacked, as
UTF-8) and a line number; in Parquet both are row numbers. A reader of a damaged file yields the rows before the damage,
then raises `DamagedFile`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from engine.errors import WrongCall
from engine.pipeline.importing.byte_source import Source, is_stream
from engine.pipeline.importing.csv_records import CsvRecords, decode, recoded_fault, tokenise
from engine.pipeline.importing.line_reader import LONGEST_LINE, Batch, Position, damaged

DELIMITERS: Final = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}


class Reader(Protocol):
    """One open file; `columns` is None if each row names its own."""

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Return the names in the header."""

    def batches(self, size: int, start: Position | None) -> Iterator[Batch]:
        """Yield the rows from `start` on (from the first, if None), `size` at a time."""

    def close(self) -> None:
        """Close the file."""


def open_reader(path: Path, *, form: str | None = None, delimiter: str = ",", encoding: str = "utf-8") -> Reader:
    """Return a reader by `form` (`csv`, `ndjson`, `parquet`), the file's name, or for a stream its first bytes.

    Raises `WrongCall` if none of them decides, and for a file that is wrong as a whole.
    """
    names = path.name.lower().removesuffix(".gz")
    known = {"csv": "csv", "tsv": "csv", "ndjson": "ndjson", "jsonl": "ndjson", "json": "ndjson", "parquet": "parquet"}
    form = form or known.get(names.rpartition(".")[2])
    if delimiter == "\\t":
        delimiter = "\t"
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise WrongCall(f"--delimiter {delimiter!r}: expected one character", remedy="such as ';' or a tab, '\\t'")
    try:
        if form == "parquet":
            return _open_parquet(path, encoding)
        source = Source(path, encoding)
    except OSError as error:
        raise WrongCall(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        if form is None and source.stream:
            form = "ndjson" if source.head().lstrip()[:1] in (b"{", b"[") else "csv"
        if form == "csv":
            return CsvReader(path, "\t" if names.endswith(".tsv") and delimiter == "," else delimiter, source)
        if form == "ndjson":
            from engine.pipeline.importing.json_rows import open_json

            return open_json(source)
    except (EOFError, zlib.error, OSError) as error:
        source.close()
        raise damaged(str(path), error) from error
    except WrongCall:
        source.close()
        raise
    source.close()
    raise WrongCall(f"{path}: the name does not show the format", remedy="pass --format csv, ndjson or parquet")


def _open_parquet(path: Path, encoding: str) -> Reader:
    if is_stream(path):
        raise WrongCall("Parquet is not read from a pipe: its index is at its end", remedy="name a file")
    if encoding != "utf-8":
        raise WrongCall("--encoding is for CSV and JSON; Parquet declares its own encoding")
    try:
        # Imported here, because pyarrow takes half a second, and most imports and all other commands do not need it.
        from engine.pipeline.importing.parquet import ParquetReader

        return ParquetReader(path)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        remedy = "install tidegate[parquet], or write the file as CSV or NDJSON"
        raise WrongCall(f"{path}: Parquet is read by pyarrow, which is not installed", remedy=remedy) from error


class CsvReader:
    """Reads comma-separated values with a header line; `engine.pipeline.importing.csv_records` defines a record."""

    def __init__(self, path: Path, delimiter: str, source: Source) -> None:
        """Read the header. Raises `WrongCall` if that fails."""
        self._path = path
        self._source = source
        self._delimiter = delimiter
        self._lines = source.lines(Position(0, 1), LONGEST_LINE)
        self.columns = self._header()

    def _header(self) -> tuple[str, ...]:
        line = self._lines.read()
        if line is None:
            self._lines.raise_damage()
            raise WrongCall(f"{self._path}: the file is empty", remedy="the first line must name the columns")
        raw = line.raw.removeprefix(b"\xef\xbb\xbf")
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise WrongCall(f"{self._path}:1: the file is UTF-16", remedy="pass --encoding utf-16")
        text, fault = decode(raw)
        if fault:
            raise WrongCall(f"{self._path}:1: the header: {fault}")
        if line.overlong:
            raise WrongCall(f"{self._path}:1: the header is too long", remedy="is this a CSV file?")
        cells = tokenise(text, self._delimiter)
        if not isinstance(cells, list):
            raise WrongCall(f"{self._path}:1: the header: {cells or 'a quote is opened and not closed'}")
        if any("\r" in cell for cell in cells):
            raise WrongCall(
                f"{self._path}:1: the lines end with CR alone", remedy="save the file with LF or CRLF line ends"
            )
        if len(cells) == 1:
            other = next(
                (delimiter for delimiter in DELIMITERS if delimiter != self._delimiter and delimiter in cells[0]), None
            )
            if other is not None:
                raise WrongCall(
                    f"{self._path}:1: the header has one column, {cells[0].strip()[:60]!r}",
                    remedy=f"it seems to be separated by a {DELIMITERS[other]}: pass --delimiter '{other}'",
                )
        return tuple(cell.strip() for cell in cells)

    def batches(self, size: int, start: Position | None) -> Iterator[Batch]:
        """Yield the rows from `start` on, `size` at a time; without `start`, those after the header, but only once."""
        lines = self._lines if start is None else self._source.lines(start, LONGEST_LINE)
        records = CsvRecords(lines, len(self.columns), self._delimiter)
        encoding = self._source.encoding
        while True:
            rows, after = records.some(size)
            if not rows:
                lines.raise_damage()
                return
            if encoding != "UTF-8":
                rows = [recoded_fault(row, encoding) for row in rows]
            yield Batch(rows, after, self._source.share(after.offset))

    def close(self) -> None:
        """Close the file."""
        self._source.close()
