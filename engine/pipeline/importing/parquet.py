"""Read Parquet files as batches of rows, a row group at a time.

A value that Python cannot hold (a time in the year 10000, bytes that are not text) is read as `Odd`: it costs only its
row, and only if its column is imported. A column of structs is read as one column for each of their parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from engine.catalogue.value_parsing import Odd
from engine.errors import WrongCall
from engine.pipeline.importing.line_reader import Batch, DamagedFile, Position, RawRow

_FINER: Final = (100, 1)
"""Rows read at a time in a damaged row group, so that all rows before the damage come out."""

_READ: Final = (pa.ArrowException, OSError, ValueError, MemoryError)
"""Exceptions of pyarrow when it cannot read on; not all of its own errors are also `ValueError` or `OSError`."""

_CONVERT: Final = (pa.ArrowException, ArithmeticError, ValueError, TypeError, LookupError)


class ParquetReader:
    """A Parquet file, read a row group at a time; its columns are the rows' columns, parts of structs by their path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = pq.ParquetFile(path, memory_map=False, pre_buffer=False, page_checksum_verification=True)
            fields = list(self._file.schema_arrow)
        except _READ as error:
            why = str(error).splitlines()[0][:200]
            raise WrongCall(f"{path}: is not a Parquet file, or is damaged: {why}", remedy="write it again") from error
        self.columns: tuple[str, ...] = tuple(name for field in fields for name in _names(field.name, field.type))

    def batches(self, size: int, start: Position | None) -> Iterator[Batch]:
        """Yield the rows from `start` on, `size` at a time. Raises `DamagedFile` after the last readable row."""
        number = start.offset if start else 0
        total = max(1, self._file.metadata.num_rows)
        held: list[RawRow] = []
        try:
            for rows in self._rows(size, number):
                held += rows
                while len(held) >= size:
                    number += size
                    yield Batch(held[:size], Position(number, number + 1), number / total)
                    held = held[size:]
        except DamagedFile:
            if held:
                number += len(held)
                yield Batch(held, Position(number, number + 1), number / total)
            raise
        if held:
            number += len(held)
            yield Batch(held, Position(number, number + 1), number / total)

    def _rows(self, size: int, skip: int) -> Iterator[list[RawRow]]:
        """Yield all rows but the first `skip`, in pieces that do not span row groups."""
        first = 0
        for group in range(self._file.num_row_groups):
            behind = first + self._file.metadata.row_group(group).num_rows
            if behind > skip:
                yield from self._group(group, first, max(skip - first, 0), size)
            first = behind

    def _group(self, group: int, first: int, skip: int, size: int) -> Iterator[list[RawRow]]:
        """Yield the rows of one row group; read a damaged group again in smaller pieces, up to the damage."""
        for finer in (size, *_FINER):
            at = 0
            try:
                for batch in self._file.iter_batches(batch_size=finer, row_groups=[group], use_threads=False):
                    kept = batch.slice(min(max(skip - at, 0), batch.num_rows))
                    at += batch.num_rows
                    if kept.num_rows:
                        yield self._rows_of_batch(kept, first + at - kept.num_rows)
                        skip = at
            except _READ as error:
                if finer != _FINER[-1] and finer > 1:
                    continue
                raise self._damaged(first + skip, error) from error
            return

    def _damaged(self, number: int, error: Exception) -> DamagedFile:
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return DamagedFile(
            f"row {number + 1}: the file is damaged: {why}", remedy="write it again, and import it again"
        )

    def _rows_of_batch(self, batch: Any, number: int) -> list[RawRow]:  # Any: pyarrow has no types
        columns = [values for column in batch.columns for values in _columns(column)]
        return [RawRow(number + place, values) for place, values in enumerate(zip(*columns, strict=True), 1)]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _names(name: str, kind: Any) -> list[str]:  # Any: pyarrow has no types
    """Return the columns as which a field is read."""
    if not pa.types.is_struct(kind) or not kind.num_fields:
        return [name]
    return [path for part in kind for path in _names(f"{name}.{part.name}", part.type)]


def _columns(column: Any) -> Iterator[Sequence[Any]]:  # Any: pyarrow has no types
    """Yield the values of a column, or of each part of a column of structs."""
    if pa.types.is_struct(column.type) and column.type.num_fields:
        for part in column.flatten():
            yield from _columns(part)
    else:
        yield _plain(column)


def _plain(column: Any) -> list[Any]:  # Any: pyarrow has no types
    """Return one column as Python values; times are cut to milliseconds, dates become texts."""
    kind = column.type
    try:
        return _converted(column, kind)
    except _CONVERT:
        return [_scalar(column, place, kind) for place in range(len(column))]


def _scalar(column: Any, place: int, kind: Any) -> Any:
    """Return one value, as `Odd` if it cannot be converted."""
    try:
        return _converted(column.slice(place, 1), kind)[0]
    except _CONVERT:
        for test, what in _ODD:
            if test(kind):
                return Odd(what)
        return Odd(f"a value of type {kind} that cannot be read")


def _converted(column: Any, kind: Any) -> list[Any]:
    if pa.types.is_timestamp(kind):
        # Finer units are cut to milliseconds; for seconds an overflow raises instead of wrapping around. An instant is
        # the same in any zone, so the zone's name, which may be invalid, is never looked up.
        column = column.cast(pa.timestamp("ms", kind.tz and "UTC"), safe=kind.unit in ("s", "ms"))
    values: list[Any] = column.to_pylist()
    if pa.types.is_date(kind):
        return [value.isoformat() if isinstance(value, date) else value for value in values]
    if any(isinstance(value, UUID) for value in values):
        return [str(value) if isinstance(value, UUID) else value for value in values]
    return values


_ODD: Final[Sequence[tuple[Callable[[Any], bool], str]]] = (
    (lambda kind: pa.types.is_temporal(kind), "a time outside the years 1 to 9999"),
    (lambda kind: pa.types.is_decimal(kind), "an invalid decimal"),
    (lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind), "bytes that are not UTF-8"),
)
