"""Read JSON as rows: one value per line (NDJSON), or the elements of one array in any layout (`--jsonArray`)."""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from engine.errors import WrongCall
from engine.pipeline.importing.byte_source import Source
from engine.pipeline.importing.csv_records import decode, recoded_fault
from engine.pipeline.importing.extended_json import MARK, plain
from engine.pipeline.importing.line_reader import (
    LONGEST_JSON,
    MOST_BYTES,
    Batch,
    DamagedFile,
    Position,
    RawRow,
    damaged,
)

_BETWEEN: Final = re.compile(r"[\s,]*")
_BLOCK: Final = 1 << 18
_BOM: Final = b"\xef\xbb\xbf"


def open_json(source: Source) -> LineReader | ArrayReader:
    """Return the reader for the first bytes: arrays, and objects over several lines, are read value by value."""
    head = source.head().removeprefix(_BOM).lstrip()
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise WrongCall("line 1: the file is UTF-16", remedy="pass --encoding utf-16")
    if head.startswith(b"["):
        return ArrayReader(source, in_array=True)
    if head.partition(b"\n")[0].strip() == b"{":
        return ArrayReader(source, in_array=False)
    return LineReader(source)


class LineReader:
    """Reads one JSON value per line; skips blank lines."""

    columns: tuple[str, ...] | None = None

    def __init__(self, source: Source) -> None:
        self._source = source

    def batches(self, size: int, start: Position | None) -> Iterator[Batch]:
        """Yield the rows from `start` on, `size` at a time."""
        at = start or Position(0, 1)
        lines = self._source.lines(at, LONGEST_JSON)
        decoder = msgspec.json.Decoder()
        rows: list[RawRow] = []
        first = at.offset
        while (line := lines.read()) is not None:
            raw = line.raw.removeprefix(_BOM) if line.number == 1 else line.raw
            at = Position(line.end, line.number + 1)
            if raw.strip():
                row = _read(decoder, line.number, raw, overlong=line.overlong)
                rows.append(recoded_fault(row, self._source.encoding))
            if len(rows) == size or at.offset - first >= MOST_BYTES:
                yield Batch(rows, at, self._source.share(at.offset))
                rows, first = [], at.offset
        if rows:
            yield Batch(rows, at, 1.0)
        lines.raise_damage()

    def close(self) -> None:
        """Close the file."""
        self._source.close()


class ArrayReader:
    """Reads the elements of one JSON array, or consecutive JSON values; the line of a row is its number from 1."""

    columns: tuple[str, ...] | None = None

    def __init__(self, source: Source, *, in_array: bool) -> None:
        self._source = source
        self._in_array = in_array

    def batches(self, size: int, start: Position | None) -> Iterator[Batch]:
        """Yield the rows from `start` on, `size` at a time."""
        at = start or Position(0, 1)
        text = _Text(self._source, at.offset)
        decoder = msgspec.json.Decoder()
        rows: list[RawRow] = []
        first, number = at.offset, at.line
        damage: DamagedFile | None = None
        if start is None:
            text.skip("[" if self._in_array else "")
        while True:
            try:
                raw = text.value(number, in_array=self._in_array)
            except DamagedFile as error:
                damage = error
                break
            if raw is None:
                break
            rows.append(recoded_fault(_read(decoder, number, raw, overlong=False), self._source.encoding))
            number += 1
            at = Position(text.offset, number)
            if len(rows) == size or at.offset - first >= MOST_BYTES:
                yield Batch(rows, at, self._source.share(at.offset))
                rows, first = [], at.offset
        if rows:
            yield Batch(rows, at, 1.0)
        if damage is not None:
            raise damage

    def close(self) -> None:
        """Close the file."""
        self._source.close()


class _Text:
    """The text of a file, from which JSON values are taken off the front."""

    def __init__(self, source: Source, offset: int) -> None:
        """Start at `offset`; bytes that are not UTF-8 become surrogates, so that `offset` stays right."""
        self._file = source.at(offset)
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text = ""
        self._at = 0
        self._more = True
        self._damage: Exception | None = None
        # This decoder only finds where a value ends; the stricter decoder of the rows reads the value.
        self._end = json.JSONDecoder(strict=False, parse_float=len, parse_int=len).raw_decode
        self.offset = offset

    def _grow(self, least: int = _BLOCK) -> bool:
        """Read further bytes; return False if there are none."""
        if not self._more:
            return False
        pieces, size = [self._text[self._at :]], 0
        while size < least and self._more:
            try:
                block = self._file.read1(_BLOCK)
            except (EOFError, zlib.error, OSError) as error:
                self._damage, block = error, b""
            self._more = bool(block)
            size += len(block)
            pieces.append(self._decoder.decode(block, final=not block))
        self._text, self._at = "".join(pieces), 0
        return True

    def _take(self, end: int) -> bytes:
        raw = self._text[self._at : end].encode(errors="surrogateescape")
        self._at = end
        self.offset += len(raw)
        return raw

    def _to_next(self, gap: re.Pattern[str]) -> str:
        """Skip the gap between values; return the next character, empty at the end."""
        while True:
            match = gap.match(self._text, self._at)
            self._take(match.end() if match else self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._grow():
                return ""

    def skip(self, opening: str) -> None:
        """Skip a byte order mark, and the opening bracket if there is one."""
        self._to_next(re.compile(r"\ufeff?\s*"))
        if opening:
            self._take(self._at + len(opening))

    def value(self, number: int, *, in_array: bool) -> bytes | None:
        """Return the bytes of the next value; None after the last. Raises `DamagedFile`."""
        where = f"value {number}"
        here = self._to_next(_BETWEEN)
        if here == "]" and in_array:
            self._take(self._at + 1)
            if self._to_next(_BETWEEN):
                raise damaged(where, ValueError("something follows the closing bracket of the array"))
            return None
        if not here:
            if self._damage is not None or in_array:
                raise damaged(
                    where, self._damage or EOFError("the array has no closing bracket, so the end is missing")
                )
            return None
        while True:
            try:
                _, end = self._end(self._text, self._at)
            except json.JSONDecodeError as error:
                held = len(self._text) - self._at
                if held > LONGEST_JSON or not self._grow(held):
                    raise damaged(
                        where, self._damage or ValueError(f"no whole JSON value begins there: {error.msg}")
                    ) from error
                continue
            except RecursionError as error:
                raise damaged(where, ValueError("it is nested too deeply")) from error
            # a number may continue beyond the text read so far
            if end < len(self._text) or not self._grow():
                return self._take(end)


def _read(decoder: msgspec.json.Decoder[Any], number: int, raw: bytes, *, overlong: bool) -> RawRow:
    """Read one JSON value as a row."""
    if overlong:
        return RawRow(number, None, f"the line is too long (a row may have {LONGEST_JSON >> 20} MiB)", raw)
    try:
        values = decoder.decode(raw)
        if MARK in raw:
            values = plain(values)
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
