"""Read a file as physical lines, a block at a time, from any offset; and the types that all readers share."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from io import BufferedIOBase, BytesIO
from typing import Any, Final, NamedTuple

from engine.errors import WrongCall

LONGEST_LINE: Final = 1 << 20
"""Bytes in one line of CSV; a longer line is a fault, and is skipped without holding it in memory."""

LONGEST_JSON: Final = 1 << 25
"""Bytes in one JSON value: a MongoDB document has up to 16 MiB, and Extended JSON makes it longer."""

BLOCK: Final = 1 << 18
"""Bytes read and cut into lines at a time: far less than a batch, and long enough to cost nothing per line."""

MOST_BYTES: Final = 1 << 24
"""Bytes in the rows of one batch, whatever its number of rows: rows of a megabyte are read a few at a time."""


class DamagedFile(WrongCall):
    """The file cannot be read from some place on; the rows before it were read."""


class Position(NamedTuple):
    """The start of the next row: an offset in bytes (Parquet: rows), and its line number (Parquet: row number)."""

    offset: int
    line: int


class RawRow(NamedTuple):
    """One row as the file has it.

    `values` are cells in the order of the reader's columns (text, or Parquet's values), or a decoded JSON value if the
    file has no columns; None if the row has a `fault`. `raw` is the row for the rejects file.
    """

    line: int
    values: Sequence[Any] | dict[str, Any] | None  # Any: decoded JSON and Parquet values, judged by the catalogue
    fault: str = ""
    raw: bytes = b""


class Batch(NamedTuple):
    """Some rows and the position after them. `share` is the part of the file that has been read, from 0 to 1."""

    rows: list[RawRow]
    after: Position
    share: float


class Line(NamedTuple):
    """One physical line: its number from 1, its bytes including the line end, and the offset after it."""

    number: int
    raw: bytes
    end: int
    overlong: bool = False


class Lines:
    """Physical lines of a binary file from an offset on; lines can be put back.

    If the file is damaged, the lines end and `raise_damage` reports it.
    """

    def __init__(self, file: BufferedIOBase, offset: int, number: int, longest: int | None = None) -> None:
        """`file` is positioned at `offset`, the start of line `number`; a line has at most `longest` bytes."""
        self._file = file
        self._offset = offset
        self._number = number
        self._longest = LONGEST_LINE if longest is None else longest
        self._ready: list[bytes] = []
        self._at = 0
        self._damage: Exception | None = None
        self._back: deque[Line] = deque()

    @property
    def position(self) -> Position:
        """Return where the next line begins, if none was put back."""
        return Position(self._offset, self._number)

    def raise_damage(self) -> None:
        """Raise `DamagedFile` if the lines ended because the file is damaged."""
        if self._damage is not None:
            raise damaged(f"line {self._number}", self._damage)

    def read(self) -> Line | None:
        """Return the next line, or None at the end of the file."""
        if self._back:
            return self._back.popleft()
        if self._at == len(self._ready) and not self._fill():
            return None
        raw = self._ready[self._at]
        self._at += 1
        size, overlong = len(raw), len(raw) > self._longest
        more = raw
        while overlong and not more.endswith(b"\n"):
            # Only the last line of a block can be this long, so the line continues at the file's position.
            more = self._readline(self._longest)
            if not more:
                break
            size += len(more)
        self._offset += size
        line = Line(self._number, raw[:200] if overlong else raw, self._offset, overlong)
        self._number += 1
        return line

    def ahead(self, most: int) -> list[bytes]:
        """Return up to `most` of the next lines without taking them; none if a line was put back."""
        if self._back or (self._at == len(self._ready) and not self._fill()):
            return []
        return self._ready[self._at : self._at + most]

    def take(self, lines: Sequence[bytes]) -> None:
        """Take these lines, which `ahead` returned."""
        self._at += len(lines)
        self._number += len(lines)
        self._offset += sum(map(len, lines))

    def _fill(self) -> bool:
        """Read a block and the rest of its last line; return False at the end of the file, or if it is damaged."""
        if self._damage is not None:
            return False
        try:
            block = self._file.read1(BLOCK)
        except (EOFError, zlib.error, OSError) as error:
            self._damage = error
            return False
        if not block.endswith(b"\n"):
            rest, whole = self._rest()
            # If the rest is damaged, the whole lines of the block still count; its cut last line does not.
            block = block + rest if whole else block[: block.rfind(b"\n") + 1]
        self._ready, self._at = BytesIO(block).readlines(), 0
        return bool(self._ready)

    def _rest(self) -> tuple[bytes, bool]:
        """Return the rest of the last line of a block, and whether it could be read."""
        rest = self._readline(self._longest + 1)
        return rest, self._damage is None

    def _readline(self, most: int) -> bytes:
        try:
            return self._file.readline(most)
        except (EOFError, zlib.error, OSError) as error:
            self._damage = error
            return b""

    def put_back(self, lines: list[Line]) -> None:
        """Read these lines again, in this order, before any other."""
        self._back.extendleft(reversed(lines))


def damaged(where: str, error: Exception) -> DamagedFile:
    """Return the error for a file that ends with `error`."""
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, zlib.error):
        why = why.partition("decompressing data: ")[2] or why
        why = f"it cannot be unpacked ({why}), so rows shortly before may be wrong too"
    return DamagedFile(f"{where}: the file is damaged: {why}", remedy="get a complete copy, and import it again")
