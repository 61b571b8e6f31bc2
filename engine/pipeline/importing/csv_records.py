"""Split a CSV file into records so that one bad row stays one bad row, wherever its quotes are.

The format is RFC 4180: a field is quoted as a whole or not at all, a quote inside is doubled, a quoted field may hold
delimiters and newlines. A quote that is never closed would swallow the rest of the file; here it costs only its own
line. A record over several lines counts only if it is well formed, has as many columns as the header, and ends within
`LONGEST_RECORD` bytes and `MOST_LINES` lines. Otherwise only its first line is at fault, and the reader continues with
the next line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from engine.pipeline.importing.line_reader import LONGEST_LINE, MOST_BYTES, Line, Lines, Position, RawRow

LONGEST_RECORD: Final = 1 << 16
"""Bytes within which a quoted field over several lines must be closed: eight times the longest field that is kept."""

MOST_LINES: Final = 1_000
"""Lines within which a quoted field must be closed."""

LONGEST_CELL: Final = 8_000
"""Longest field that is kept, in characters (the limit is in bytes; see `engine.catalogue.values`)."""


class Record(NamedTuple):
    """One row: its first line, its cells (None if it has a fault), its fault, its bytes, and where the next begins."""

    line: int
    cells: list[str] | None
    fault: str
    raw: bytes
    end: int
    next_line: int


class CsvRecords:
    """The records of a CSV file after its header."""

    def __init__(self, lines: Lines, columns: int, delimiter: str) -> None:
        self._lines = lines
        self._columns = columns
        self._delimiter = delimiter

    def __iter__(self) -> Iterator[Record]:
        while (record := self._next()) is not None:
            yield record

    def some(self, size: int) -> tuple[list[RawRow], Position]:
        """Return up to `size` records as rows, and where the next begins; fewer if they are long, none at the end."""
        rows: list[RawRow] = []
        first, after = self._lines.position.offset, self._lines.position
        while len(rows) < size and after.offset - first < MOST_BYTES:
            ahead = self._lines.ahead(size - len(rows))
            plain = self._plain(ahead, rows)
            self._lines.take(ahead[:plain])
            after = self._lines.position if plain else after
            if plain < len(ahead) or not ahead:
                record = self._next()
                if record is None:
                    break
                rows.append(RawRow(record.line, record.cells, record.fault, record.raw))
                after = Position(record.end, record.next_line)
        return rows, after

    def _plain(self, lines: Sequence[bytes], rows: list[RawRow]) -> int:
        """Add the records of lines without a quote to `rows`, up to the first line with one; return how many lines."""
        delimiter, columns = self._delimiter, self._columns
        number = first = self._lines.position.line
        for number, raw in enumerate(lines, first):
            if b'"' in raw or len(raw) > LONGEST_LINE:
                return number - first
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                rows.append(RawRow(number, None, decode(raw)[1], raw))
                continue
            cells = text.rstrip("\r\n").split(delimiter)
            if len(cells) == columns and "\0" not in text and (columns > 1 or cells[0]):
                rows.append(RawRow(number, cells, "", raw))
            elif cells != [""]:
                rows.append(RawRow(number, None, decode(raw)[1] or miscounted(len(cells), columns), raw))
        return len(lines)

    def _next(self) -> Record | None:
        """Return the next record of any form; None at the end."""
        while (line := self._lines.read()) is not None:
            raw = line.raw
            if b'"' in raw or line.overlong:
                return self._quoted(line)
            text, fault = decode(raw)
            text = text.rstrip("\r\n")
            if not text:
                continue
            cells = text.split(self._delimiter)
            if len(cells) != self._columns and not fault:
                fault = miscounted(len(cells), self._columns)
            return Record(line.number, None if fault else cells, fault, raw, line.end, line.number + 1)
        return None

    def _quoted(self, first: Line) -> Record:
        """Return the record that begins with a line that holds a quote or is too long."""
        if first.overlong:
            return self._faulty(first, f"the line is longer than {LONGEST_LINE} bytes")
        raw, lines = first.raw, [first]
        cells = tokenise(decode(raw)[0], self._delimiter)
        while cells is None:
            line = self._lines.read() if len(lines) < MOST_LINES and len(raw) < LONGEST_RECORD else None
            if line is None or line.overlong:
                self._lines.put_back([*lines[1:], *([line] if line else [])])
                return self._faulty(
                    first, "a quote is opened and never closed (close it, or double it to mean a quote)"
                )
            raw += line.raw
            lines.append(line)
            if b'"' in line.raw:
                cells = tokenise(decode(raw)[0], self._delimiter)
        if isinstance(cells, list) and (len(lines) == 1 or self._is_one_record(cells, lines)):
            _, fault = decode(raw)
            if len(cells) != self._columns and not fault:
                fault = miscounted(len(cells), self._columns)
            return Record(first.number, None if fault else cells, fault, raw, lines[-1].end, lines[-1].number + 1)
        self._lines.put_back(lines[1:])
        if len(lines) == 1:
            return self._faulty(first, str(cells))
        return self._faulty(
            first, "a quote is opened and not closed in its row (close it, or double it to mean a quote)"
        )

    def _is_one_record(self, cells: list[str], lines: list[Line]) -> bool:
        """Return whether several lines are one record, and not an open quote that a later quote happened to close.

        If a field is too long to be kept, the row is lost either way. Then lines inside it that are complete rows,
        column for column, count as rows.
        """
        if len(cells) != self._columns:
            return False
        inner = lines[1:-1]
        if self._columns < 2 or not inner or max(map(len, cells)) <= LONGEST_CELL:
            return True
        rows = (tokenise(decode(line.raw)[0], self._delimiter) for line in inner)
        return not all(isinstance(row, list) and len(row) == self._columns for row in rows)

    @staticmethod
    def _faulty(line: Line, reason: str) -> Record:
        return Record(line.number, None, decode(line.raw)[1] or reason, line.raw, line.end, line.number + 1)


def decode(raw: bytes) -> tuple[str, str]:
    """Return the text of some bytes and their fault (empty: none); bad bytes become surrogates."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        place = f"byte {error.start + 1} of the row (0x{raw[error.start]:02x}) is not UTF-8"
        return raw.decode(errors="surrogateescape"), f"{place} (save the file as UTF-8, or pass --encoding)"
    return text, "has a NUL byte (remove it)" if "\0" in text else ""


def recoded_fault(row: RawRow, encoding: str) -> RawRow:
    """Return the row with its fault named after the requested encoding: invalid bytes were marked by 0xff."""
    if "is not UTF-8" not in row.fault or encoding == "UTF-8":
        return row
    return row._replace(fault=f"has bytes that are not text in {encoding} (pass another --encoding)")


def miscounted(count: int, columns: int) -> str:
    """Return the fault of a row with `count` cells."""
    hint = "quote a field that holds the delimiter" if count > columns else "is a field or a delimiter missing?"
    return f"has {count} columns, the header has {columns} ({hint})"


def tokenise(text: str, delimiter: str) -> list[str] | str | None:
    """Return the cells of one record with quotes; None if a quote is open at the end, a text if malformed."""
    text = text[:-1] if text.endswith("\n") else text
    text = text[:-1] if text.endswith("\r") else text
    cells: list[str] = []
    at, size = 0, len(text)
    while True:
        if text.startswith('"', at):
            end = closing(text, at + 1)
            if end < 0:
                return None
            cells.append(text[at + 1 : end].replace('""', '"'))
            at = end + 1
            if at < size and text[at] != delimiter:
                return f"column {len(cells)} continues after its closing quote (double a quote to mean one)"
        else:
            end = text.find(delimiter, at)
            end = size if end < 0 else end
            cell = text[at:end]
            if '"' in cell:
                return f"column {len(cells) + 1} has a quote but does not begin with one (quote all of it)"
            cells.append(cell)
            at = end
        if at >= size:
            return cells
        at += len(delimiter)


def closing(text: str, at: int) -> int:
    """Return where the quoted field that begins before `at` is closed; -1 if it is not."""
    while (at := text.find('"', at)) >= 0 and text.startswith('"', at + 1):
        at += 2
    return at
