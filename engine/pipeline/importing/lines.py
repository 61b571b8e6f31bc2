"""A file as physical lines, read a block at a time, from any offset; and what all readers of rows share."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from io import BufferedIOBase, BytesIO
from typing import Any, Final, NamedTuple

from engine.errors import WrongCall

LONGEST_LINE: Final = 1 << 20
"""Bytes in one line of CSV; a longer one is a fault, and is skipped without being held in memory."""

LONGEST_JSON: Final = 1 << 25
"""Bytes in one JSON value: a document of MongoDB has 16 MiB at most, which its extended JSON makes longer."""

BLOCK: Final = 1 << 18
"""Bytes that are read and cut into lines at a time: far less than a batch, and long enough to cost nothing a line."""

MOST_BYTES: Final = 1 << 24
"""Bytes in the rows of one batch, however many rows it may have: rows of a megabyte are read a few at a time."""


class DamagedFile(WrongCall):
    """The file cannot be read from some place on; what stands before it was read."""


class Position(NamedTuple):
    """Where the next row begins: an offset in bytes (Parquet: rows) and the number of its line (Parquet: row)."""

    offset: int
    line: int


class RawRow(NamedTuple):
    """One row as the file has it.

    `values` are cells in the order of the reader's columns (text, or Parquet's values), or a decoded JSON value where
    the file has no columns; None where the row has a `fault`. `raw` is the row for the rejects file.
    """

    line: int
    values: Sequence[Any] | dict[str, Any] | None  # Any: decoded JSON and Parquet values, judged by the catalogue
    fault: str = ""
    raw: bytes = b""


class Line(NamedTuple):
    """One physical line: its number from 1, its bytes with the line end, the offset behind it."""

    number: int
    raw: bytes
    end: int
    overlong: bool = False


class Lines:
    """Physical lines of a binary file from an offset on, with the possibility to put some back.

    Where the file is damaged the lines end, and `damage` says so.
    """

    def __init__(self, file: BufferedIOBase, offset: int, number: int, longest: int | None = None) -> None:
        """`file` stands at `offset`, which is the start of line `number`; a line has at most `longest` bytes."""
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
        """Where the next line begins, if none was put back."""
        return Position(self._offset, self._number)

    def raise_damage(self) -> None:
        """Raise `DamagedFile` where the lines have ended because the file is damaged."""
        if self._damage is not None:
            raise damaged(f"line {self._number}", self._damage)

    def read(self) -> Line | None:
        """The next line, or None at the end of the file."""
        if self._back:
            return self._back.popleft()
        if self._at == len(self._ready) and not self._fill():
            return None
        raw = self._ready[self._at]
        self._at += 1
        size, overlong = len(raw), len(raw) > self._longest
        more = raw
        while overlong and not more.endswith(b"\n"):
            # Only the last line of a block can be so long, so the file stands where it goes on.
            more = self._readline(self._longest)
            if not more:
                break
            size += len(more)
        self._offset += size
        line = Line(self._number, raw[:200] if overlong else raw, self._offset, overlong)
        self._number += 1
        return line

    def ahead(self, most: int) -> list[bytes]:
        """Up to `most` of the next lines, which are not taken by this; none where a line was put back."""
        if self._back or (self._at == len(self._ready) and not self._fill()):
            return []
        return self._ready[self._at : self._at + most]

    def take(self, lines: Sequence[bytes]) -> None:
        """Take these, which `ahead` has told."""
        self._at += len(lines)
        self._number += len(lines)
        self._offset += sum(map(len, lines))

    def _fill(self) -> bool:
        """Read a block and the rest of the line it ends in; False at the end of the file, or where it is damaged."""
        if self._damage is not None:
            return False
        try:
            block = self._file.read1(BLOCK)
        except (EOFError, zlib.error, OSError) as error:
            self._damage = error
            return False
        if not block.endswith(b"\n"):
            rest, whole = self._rest()
            # Where it is damaged the whole lines of the block still count; the last one is cut.
            block = block + rest if whole else block[: block.rfind(b"\n") + 1]
        self._ready, self._at = BytesIO(block).readlines(), 0
        return bool(self._ready)

    def _rest(self) -> tuple[bytes, bool]:
        """The rest of the line that a block ends in, and whether it could be read."""
        rest = self._readline(self._longest + 1)
        return rest, self._damage is None

    def _readline(self, most: int) -> bytes:
        try:
            return self._file.readline(most)
        except (EOFError, zlib.error, OSError) as error:
            self._damage = error
            return b""

    def put_back(self, lines: list[Line]) -> None:
        """Read these again, in this order, before anything else."""
        self._back.extendleft(reversed(lines))


def damaged(where: str, error: Exception) -> DamagedFile:
    """What to tell of a file that ends by `error`."""
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, zlib.error):
        why = why.partition("decompressing data: ")[2] or why
        why = f"it cannot be unpacked ({why}), so rows shortly before may be wrong too"
    return DamagedFile(f"{where}: the file is damaged: {why}", remedy="get it again, whole, and import it again")
