"""Files as batches of raw rows, in constant memory, from any position that an earlier run has reached.

CSV and NDJSON may be gzipped. A position is an offset into the (unpacked) bytes and a line number; in Parquet both are
row numbers.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from engine.errors import WrongCall
from engine.pipeline.importing.lines import MOST_BYTES, Lines, Position, RawRow
from engine.pipeline.importing.records import CsvRecords, decode, tokenise

DELIMITERS: Final = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}


class Batch(NamedTuple):
    """Some rows, and the position behind them. `share` is the part of the file that is read, from 0 to 1."""

    rows: list[RawRow]
    after: Position
    share: float


class Reader(Protocol):
    """One open file; `columns` is None where each row names its own."""

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The names of the header."""

    def batches(self, size: int, start: Position | None) -> Iterator[Batch]:
        """The rows from `start` on (the first, where None), `size` at a time."""

    def close(self) -> None:
        """Release the file."""


def open_reader(path: Path, *, form: str | None = None, delimiter: str = ",") -> Reader:
    """A reader by `form` (`csv`, `ndjson`, `parquet`), or by its name. Raises `WrongCall` where neither tells."""
    names = path.name.lower().removesuffix(".gz")
    known = {"csv": "csv", "tsv": "csv", "ndjson": "ndjson", "jsonl": "ndjson", "json": "ndjson", "parquet": "parquet"}
    form = form or known.get(names.rpartition(".")[2])
    try:
        if form == "csv":
            return CsvReader(path, "\t" if names.endswith(".tsv") and delimiter == "," else delimiter)
        if form == "ndjson":
            return NdjsonReader(path)
        if form == "parquet":
            # Here, because pyarrow takes half a second to import, and most imports and all other commands need none.
            from engine.pipeline.importing.parquet import ParquetReader

            return ParquetReader(path)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        remedy = "install tidegate[parquet], or write the file as CSV or NDJSON"
        raise WrongCall(f"{path}: Parquet is read by pyarrow, which is not installed", remedy=remedy) from error
    except OSError as error:
        raise WrongCall(f"{path}: cannot be read: {error.strerror or error}") from error
    raise WrongCall(f"{path}: the name does not tell the format", remedy="pass --format csv, ndjson or parquet")


class _Bytes:
    """A file of lines: plain, or gzipped (then an offset is reached by reading up to it)."""

    def __init__(self, path: Path) -> None:
        self._plain = path.open("rb", buffering=1 << 20)
        self._size = max(1, path.stat().st_size)
        packed = self._plain.read(2) == b"\x1f\x8b"
        self._plain.seek(0)
        self.file: BufferedIOBase = gzip.GzipFile(fileobj=self._plain) if packed else self._plain  # type: ignore[assignment] # it is buffered
        self.packed = packed

    def share(self, offset: int) -> float:
        """How much of the file is read."""
        return min(1.0, (self._plain.tell() if self.packed else offset) / self._size)

    def close(self) -> None:
        """Close both layers."""
        self.file.close()
        self._plain.close()


class CsvReader:
    """Comma-separated values with a header line; see `engine.pipeline.importing.records` for what a record is."""

    def __init__(self, path: Path, delimiter: str = ",") -> None:
        self._path = path
        self._bytes = _Bytes(path)
        self._delimiter = delimiter
        try:
            self._first, self.columns = self._header()
        except WrongCall:
            self.close()
            raise

    def _header(self) -> tuple[Position, tuple[str, ...]]:
        line = Lines(self._bytes.file, 0, 1).read()
        if line is None:
            raise WrongCall(f"{self._path}: the file is empty", remedy="the first line must name the columns")
        raw = line.raw.removeprefix(b"\xef\xbb\xbf")
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise WrongCall(f"{self._path}:1: the file is UTF-16", remedy="save it as UTF-8")
        text, fault = decode(raw)
        if fault:
            raise WrongCall(f"{self._path}:1: the header: {fault}", remedy="save the file as UTF-8")
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
            other = next((one for one in DELIMITERS if one != self._delimiter and one in cells[0]), None)
            if other is not None:
                raise WrongCall(
                    f"{self._path}:1: the header has one column, {cells[0].strip()[:60]!r}",
                    remedy=f"it seems to be separated by a {DELIMITERS[other]}: pass --delimiter '{other}'",
                )
        return Position(line.end, 2), tuple(cell.strip() for cell in cells)

    def batches(self, size: int, start: Position | None) -> Iterator[Batch]:
        """The rows from `start` on, `size` at a time."""
        at = start or self._first
        self._bytes.file.seek(at.offset)
        records = CsvRecords(Lines(self._bytes.file, *at), len(self.columns), self._delimiter)
        while True:
            rows, after = records.some(size)
            if not rows:
                return
            yield Batch(rows, after, self._bytes.share(after.offset))

    def close(self) -> None:
        """Close the file."""
        self._bytes.close()


class NdjsonReader:
    """One JSON value a line; blank lines are skipped."""

    columns: tuple[str, ...] | None = None

    def __init__(self, path: Path) -> None:
        self._bytes = _Bytes(path)

    def batches(self, size: int, start: Position | None) -> Iterator[Batch]:
        """The rows from `start` on, `size` at a time."""
        at = start or Position(0, 1)
        self._bytes.file.seek(at.offset)
        lines = Lines(self._bytes.file, *at)
        decoder = msgspec.json.Decoder()
        rows: list[RawRow] = []
        first = at.offset
        while (line := lines.read()) is not None:
            raw = line.raw.removeprefix(b"\xef\xbb\xbf") if line.number == 1 else line.raw
            at = Position(line.end, line.number + 1)
            if raw.strip():
                rows.append(_json_row(decoder, line.number, raw, overlong=line.overlong))
            if len(rows) == size or at.offset - first >= MOST_BYTES:
                yield Batch(rows, at, self._bytes.share(at.offset))
                rows, first = [], at.offset
        if rows:
            yield Batch(rows, at, 1.0)

    def close(self) -> None:
        """Close the file."""
        self._bytes.close()


def _json_row(decoder: msgspec.json.Decoder[Any], number: int, raw: bytes, *, overlong: bool) -> RawRow:
    if overlong:
        return RawRow(number, None, "the line is too long (a row may have 1 MiB)", raw)
    try:
        values = decoder.decode(raw)
    except UnicodeDecodeError:
        return RawRow(number, None, decode(raw)[1], raw)
    except (msgspec.DecodeError, RecursionError) as error:
        fault = decode(raw)[1]
        return RawRow(number, None, fault or f"is not valid JSON: {str(error) or 'nested too deeply'}", raw)
    if isinstance(values, str):
        return RawRow(number, {"user_id": values}, "", raw)
    if not isinstance(values, dict):
        return RawRow(number, None, 'is not a JSON object (write {"user_id": "...", ...})', raw)
    return RawRow(number, values, "", raw)
