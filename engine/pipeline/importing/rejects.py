"""Write the rejects file: each row that was not imported, with its line and the reason; NDJSON, or CSV by its name."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import orjson

from engine.errors import WrongCall
from engine.pipeline.importing.line_reader import RawRow

LONGEST_SHOWN = 10_000
"""Characters of a row that are kept: enough to fix it, while one endless line cannot fill a disk."""


class Rejects:
    """Appends to the rejects file; it appears with the first rejected row.

    Only its owner can read it, because rows hold personal data.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None, size: int) -> None:
        """Keep the first `size` bytes of an earlier run's file; the rows after them were not acknowledged."""
        self.path = path
        self._columns = columns
        self._file: IO[bytes] | None = None
        self.size = size
        try:
            if size and path.exists():
                os.truncate(path, size)
            else:
                path.unlink(missing_ok=True)
                self.size = 0
        except OSError as error:
            raise WrongCall(f"{path}: cannot be written: {error.strerror}", remedy="pass --rejects FILE") from error

    def write(self, rejected: Sequence[tuple[RawRow, str]]) -> None:
        """Append some rows, durably. Raises `WrongCall` if the file cannot be written."""
        if not rejected:
            return
        if self._file is None:
            try:
                self._file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
            except OSError as error:
                raise WrongCall(
                    f"{self.path}: cannot be written: {error.strerror}", remedy="pass --rejects FILE"
                ) from error
        lines = b"".join(self._line(row, reason) for row, reason in rejected)
        if self.path.suffix == ".csv" and not self.size:
            lines = b"line,reason,row\n" + lines
        try:
            self._file.write(lines)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise WrongCall(
                f"{self.path}: cannot be written: {error.strerror}", remedy="make room, and run the import again"
            ) from error
        self.size += len(lines)

    def _line(self, row: RawRow, reason: str) -> bytes:
        shown = self._shown(row)
        if self.path.suffix == ".csv":
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerow((row.line, reason, shown))
            return text.getvalue().encode(errors="replace")
        return orjson.dumps({"line": row.line, "reason": clean(reason), "row": clean(shown)}) + b"\n"

    def _shown(self, row: RawRow) -> str:
        if row.raw:
            return row.raw.rstrip(b"\r\n").decode(errors="replace")[:LONGEST_SHOWN]
        values = dict(zip(self._columns, row.values, strict=False)) if self._columns and row.values else row.values
        try:
            return orjson.dumps(values, default=str).decode()[:LONGEST_SHOWN]
        except (TypeError, ValueError):
            # whole numbers beyond 64 bits, keys that are not texts, half of a surrogate pair
            return json.dumps(values, default=str, skipkeys=True)[:LONGEST_SHOWN]

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def clean(text: str) -> str:
    """Return `text` without characters that UTF-8 cannot encode."""
    return text.encode(errors="replace").decode()
