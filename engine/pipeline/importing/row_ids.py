"""`--row-id`: give rows without an id one from the file's name and their line."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from engine.errors import WrongCall
from engine.pipeline.importing.columns import Layout
from engine.pipeline.importing.line_reader import Batch, Position, RawRow
from engine.pipeline.importing.readers import Reader

_ALIASES: Final = {"userId": "user_id", "messageId": "id"}


class Numbered:
    """The rows of a reader, each with an id as an additional column or key.

    A user's id is `FILE-LINE` (`customers-17`). An event's id also holds a hash of its row (`orders-17-5f0c…`): equal
    rows are separate events, and the same line of tomorrow's file with the same name is another event.
    """

    def __init__(self, reader: Reader, layout: Layout, name: str, column: str) -> None:
        """`name` is the file's, `column` is `user_id` or `id`. Raises `WrongCall` if the file has that column."""
        self._reader = reader
        self._layout = layout
        self._stem = name.partition(".")[0] or name
        self._column = column
        columns = reader.columns
        for present in columns or ():
            if present not in layout.ignored and self._means_id(present):
                raise WrongCall(
                    f"--row-id: the file has a column {present}", remedy="leave out --row-id, or pass --ignore"
                )
        self.columns: tuple[str, ...] | None = None if columns is None else (*columns, column)

    def _means_id(self, key: str) -> bool:
        name = self._layout.mapping.get(key, key)
        return _ALIASES.get(name, name) == self._column

    def batches(self, size: int, start: Position | None) -> Iterator[Batch]:
        """Yield the reader's batches with ids."""
        for batch in self._reader.batches(size, start):
            yield batch._replace(rows=[self._with_id(row) for row in batch.rows])

    def _with_id(self, row: RawRow) -> RawRow:
        if row.values is None:
            return row
        row_id = f"{self._stem}-{row.line}"
        if self._column == "id":
            row_id += f"-{blake2b(repr(row.values).encode(errors='surrogatepass'), digest_size=8).hexdigest()}"
        if not isinstance(row.values, dict):
            return row._replace(values=[*row.values, row_id])
        if any(self._means_id(key) for key in row.values if key not in self._layout.ignored):
            return row._replace(values=None, fault=f"has {self._column}, and --row-id makes one (leave it out)")
        return row._replace(values={**row.values, self._column: row_id})

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
