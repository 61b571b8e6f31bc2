"""Prints tables for people: as wide as the terminal; in a pipe or a file as wide as their content.

If a terminal is too narrow for the words, times and addresses are broken at their joints (`T`, `/`, `?`). If that is
not enough, each row becomes a block of lines, one for each column with content.

The module draws tables itself: rich takes longer to import than a command to run, and cuts words in tables with many
columns.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Final, TextIO

_GAP: Final = "  "
_LONG: Final = 20
"""Characters above which a word may be broken if there is no room."""
_JOINT: Final = re.compile(r"(?<=\d-\d\dT)(?=\d)|(?<=[/?&@])(?=[^/?&@])")
"""Matches behind the `T` of a time, and behind a separator of an address or a path."""
_BOLD: Final = "\x1b[1m{}\x1b[0m"


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], stream: TextIO | None = None) -> None:
    """Print a table on `stream` (stdout). On a terminal long cells continue on the next line; no word is ever cut."""
    file = sys.stdout if stream is None else stream
    terminal = file.isatty()
    head, lines = _drawn(columns, rows, shutil.get_terminal_size().columns if terminal else None)
    if head and terminal and not os.environ.get("NO_COLOR"):
        head = _BOLD.format(head)
    headed = [head] if head is not None and any(columns) else []
    file.write("".join(f"{line}\n" for line in (*title.splitlines(), *headed, *lines)))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], room: int | None = None) -> list[str]:
    """Return the lines of a table, the header first; at most `room` wide, unless one of its words needs more."""
    head, lines = _drawn(columns, rows, room)
    return lines if head is None else [head, *lines]


def _drawn(columns: Sequence[str], rows: Sequence[Sequence[object]], room: int | None) -> tuple[str | None, list[str]]:
    """Return the header and the other lines; no header if rows are blocks, because each block has the names."""
    cells = [[str(cell).splitlines() or [""] for cell in row] for row in rows]
    widths = [
        max(width_of(line) for line in (name, *(line for row in cells for line in row[number])))
        for number, name in enumerate(columns)
    ]
    if room is not None:
        least = _least(columns, cells, str.split)
        if _whole(least) > room:
            least = _least(columns, cells, break_points)
        if _whole(least) > room and any(columns) and rows:
            return None, _blocks(columns, cells, room)
        widths = _narrowed(widths, least, room)
    drawn = []
    for row in cells:
        wrapped = [_wrapped(lines, width) for lines, width in zip(row, widths, strict=True)]
        drawn += [_line(part, widths) for part in zip_longest(*wrapped, fillvalue="")]
    return _line(columns, widths), drawn


def _blocks(columns: Sequence[str], cells: Sequence[Sequence[list[str]]], room: int) -> list[str]:
    """Return a block for each row, with an empty line between two."""
    names = max(map(width_of, columns))
    drawn: list[str] = []
    for row in cells:
        drawn += [""] if drawn else []
        for name, lines in zip(columns, row, strict=True):
            if any(lines):
                wrapped = _wrapped(lines, max(1, room - names - len(_GAP)))
                drawn += [_line(part, (names, 0)) for part in zip_longest([name], wrapped, fillvalue="")]
    return drawn


def width_of(text: str) -> int:
    """Return the columns that `text` takes on a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _narrowed(widths: list[int], least: list[int], room: int) -> list[int]:
    """Return widths that fit into `room`, taken from the widest columns down to the width of their words."""
    widths = list(widths)
    over = _whole(widths) - room
    while over > 0:
        spare = [number for number, width in enumerate(widths) if width > least[number]]
        if not spare:
            break
        widest = max(spare, key=lambda number: widths[number])
        widths[widest] -= 1
        over -= 1
    return widths


def _least(
    columns: Sequence[str], cells: Sequence[Sequence[list[str]]], split: Callable[[str], Sequence[str]]
) -> list[int]:
    """Return the unbreakable width of each column: its name, which is one line, and the pieces of its cells."""
    widths = []
    for number, name in enumerate(columns):
        pieces = (part for row in cells for line in row[number] for part in split(line))
        widths.append(max(map(width_of, (name, *pieces))))
    return widths


def _whole(widths: Sequence[int]) -> int:
    """Return the width of a line."""
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def break_points(text: str) -> list[str]:
    """Return the words of a text; long times, addresses and paths are cut behind their joints."""
    return [part for word in text.split() for part in (_JOINT.split(word) if len(word) > _LONG else [word])]


def _wrapped(lines: list[str], width: int) -> list[str]:
    wrapped: list[str] = []
    for line in lines:
        if width_of(line) <= width:
            wrapped.append(line)
            continue
        for begun in textwrap.wrap(line, max(1, width), break_long_words=False, break_on_hyphens=False) or [""]:
            wrapped += [begun] if width_of(begun) <= width else _refilled(break_points(begun), width)
    return wrapped


def _refilled(pieces: Sequence[str], width: int) -> list[str]:
    """Join pieces of one word into lines, as many on a line as fit."""
    lines = [""]
    for part in pieces:
        if lines[-1] and width_of(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return lines


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell + " " * (width - width_of(cell)) for cell, width in zip(cells, widths, strict=True))
    return _GAP.join(padded).rstrip()
