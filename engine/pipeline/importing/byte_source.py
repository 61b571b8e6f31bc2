"""The bytes of an import: from a file or standard input, plain or gzipped, in UTF-8 or another encoding."""

from __future__ import annotations

import io
import stat
import sys
from pathlib import Path
from typing import Any, Final

from engine.errors import WrongCall
from engine.pipeline.importing.line_reader import Lines, Position
from engine.pipeline.importing.unpack_bytes import Chunks, blocks_of, encoding_named, recoded, unpacked

STDIN: Final = Path("-")
"""The path that means standard input."""

_BUFFER: Final = 1 << 18
_GZIP: Final = b"\x1f\x8b"
_FOREIGN: Final = {
    b"PK\x03\x04": "is a zip file or a spreadsheet",
    b"\x28\xb5\x2f\xfd": "is packed with zstd",
    b"BZh": "is packed with bzip2",
    b"\xfd7zXZ": "is packed with xz",
    b"\xd0\xcf\x11\xe0": "is an old spreadsheet",
    b"PAR1": "is a Parquet file",
    b"SQLite format": "is a SQLite database",
}


def is_stream(path: Path) -> bool:
    """Return whether the path can be read only once: standard input, or a pipe."""
    return path == STDIN or (path.exists() and not stat.S_ISREG(path.stat().st_mode))


def name_of(path: Path) -> str:
    """Return the file's name, `stdin` for standard input."""
    return "stdin" if path == STDIN else path.name


class Source:
    """The bytes of one file as UTF-8, from its beginning or from any offset."""

    def __init__(self, path: Path, encoding: str = "utf-8") -> None:
        """Open the file. Raises `OSError` if that fails, `WrongCall` for a format that no reader supports."""
        self._path = path
        self._encoding = encoding_named(encoding)
        self.stream = is_stream(path)
        self._size = 0 if self.stream else max(1, path.stat().st_size)
        self._open()
        try:
            self.packed = self._plain.peek(2)[:2] == _GZIP
            self._file = self._layered()
        except BaseException:  # close the file for any error, and raise that again
            self._plain.close()
            raise

    def _open(self) -> None:
        self._plain: io.BufferedReader[Any]  # Any: a file's, or pieces of standard input
        if self._path == STDIN:
            binary = getattr(sys.stdin, "buffer", None)
            if binary is None:
                raise WrongCall("standard input is closed", remedy="name a file")
            self._plain = io.BufferedReader(Chunks(blocks_of(binary)), _BUFFER)
        else:
            self._plain = io.BufferedReader(io.FileIO(self._path), 1 << 20)

    def _layered(self) -> io.BufferedReader[Any]:
        head = self._plain.peek(16)
        for magic, what in _FOREIGN.items():
            if head.startswith(magic):
                remedy = "pass --format parquet" if magic == b"PAR1" else "save it as CSV or NDJSON"
                if "packed" in what or "zip" in what:
                    remedy = "unpack it, e.g. into standard input: zstd -dc FILE | tidegate import users - ..."
                raise WrongCall(f"{self._path}: {what}", remedy=remedy)
        if not self.packed and self._encoding is None:
            return self._plain
        blocks = blocks_of(self._plain)
        if self.packed:
            blocks = unpacked(blocks)
        if self._encoding is not None:
            blocks = recoded(blocks, self._encoding)
        return io.BufferedReader(Chunks(blocks), _BUFFER)

    @property
    def encoding(self) -> str:
        """Return the encoding of the file."""
        return self._encoding or "UTF-8"

    def head(self) -> bytes:
        """Return some of the first bytes, before anything is read."""
        return self._file.peek(1 << 12)

    def at(self, offset: int) -> io.BufferedReader[Any]:
        """Return the file from `offset` of its unpacked bytes on; unless it is a plain file, this reads up to there."""
        if self._file is self._plain:
            if not self.stream:
                self._file.seek(offset)
        elif offset:
            self._plain.close()
            self._open()
            self._file = self._layered()
            while offset and (skipped := self._file.read(min(offset, _BUFFER))):
                offset -= len(skipped)
        return self._file

    def lines(self, start: Position, longest: int) -> Lines:
        """Return its lines from `start` on."""
        return Lines(self.at(start.offset), *start, longest=longest)

    def share(self, offset: int) -> float:
        """Return which share of it has been read, from 0 to 1; 0 if its size is unknown."""
        if self.stream:
            return 0.0
        layered = self._file is not self._plain
        return min(1.0, (self._plain.tell() if layered else offset) / self._size)

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if self._file is not self._plain:
            self._file.close()
        self._plain.close()
