"""Searches the log files of this machine: `tidegate logs search` does so when no log search answers."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

from engine.telemetry.delivery_story import Focus, Line, order_of
from engine.telemetry.log_files import log_files
from engine.telemetry.log_query import LogQuery


def read_lines(folder: Path) -> Iterator[Line]:
    """Yield every whole line of the folder's files, file by file; skip torn lines. Constant memory."""
    for path in log_files(folder):
        try:
            with path.open("rb") as file:
                for raw in file:
                    try:
                        line = orjson.loads(raw)
                    except orjson.JSONDecodeError:
                        continue
                    if isinstance(line, dict):
                        yield line
        except FileNotFoundError:
            continue  # pruned meanwhile


class Files:
    """The log files of one folder as a searchable source."""

    def __init__(self, folder: Path) -> None:
        """Remember the folder; the first search reads it."""
        self._folder = folder

    def search(self, query: LogQuery, limit: int) -> list[Line]:
        """Return the newest `limit` lines of a query, oldest first."""
        return self._newest(query.matches, limit)

    def about(self, focus: Focus, limit: int) -> list[Line]:
        """Return the newest `limit` lines of a story, oldest first."""
        return self._newest(focus.holds, limit)

    def _newest(self, accepts: Callable[[Line], bool], limit: int) -> list[Line]:
        kept: list[tuple[tuple[str, int, int], int, Line]] = []
        for number, line in enumerate(read_lines(self._folder)):
            if accepts(line):
                entry = (order_of(line), number, line)
                if len(kept) < limit:
                    heapq.heappush(kept, entry)
                else:
                    heapq.heappushpop(kept, entry)
        return [line for _, _, line in sorted(kept, key=lambda entry: entry[:2])]
