"""Parquet files as batches of rows, a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import WrongCall
from engine.pipeline.importing.lines import Position, RawRow
from engine.pipeline.importing.readers import Batch


class ParquetReader:
    """A Parquet file, read a row group at a time; its columns are the rows' columns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = pq.ParquetFile(path, memory_map=False, pre_buffer=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise WrongCall(f"{path}: is not a Parquet file: {error}") from error
        self.columns: tuple[str, ...] = tuple(self._file.schema_arrow.names)

    def batches(self, size: int, start: Position | None) -> Iterator[Batch]:
        """The rows from `start` on, `size` at a time."""
        number = start.offset if start else 0
        total = max(1, self._file.metadata.num_rows)
        group, first = 0, 0
        while group < self._file.num_row_groups and first + self._file.metadata.row_group(group).num_rows <= number:
            first += self._file.metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, self._file.num_row_groups))
        skip = number - first
        pieces = self._file.iter_batches(batch_size=size, row_groups=groups, use_threads=False)
        while (piece := self._next(pieces)) is not None:
            kept = piece.slice(min(skip, piece.num_rows))
            skip -= piece.num_rows - kept.num_rows
            if not kept.num_rows:
                continue
            columns = [_plain(kept.column(place)) for place in range(kept.num_columns)]
            rows = [RawRow(number + place, values) for place, values in enumerate(zip(*columns, strict=True), 1)]
            number += kept.num_rows
            yield Batch(rows, Position(number, number + 1), number / total)

    def _next(self, pieces: Iterator[Any]) -> Any | None:  # Any: pyarrow has no types
        try:
            return next(pieces, None)
        except (pa.ArrowException, OSError) as error:
            raise WrongCall(f"{self._path}: the file is damaged: {error}", remedy="write it again") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _plain(column: Any) -> list[Any]:  # Any: pyarrow has no types
    """One column as Python values; instants are cut to milliseconds, dates become texts."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms", column.type.tz), safe=False)
    values: list[Any] = column.to_pylist()
    if pa.types.is_date(column.type):
        return [one.isoformat() if isinstance(one, date) else one for one in values]
    return values
